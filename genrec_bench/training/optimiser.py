"""The optimiser, and the learning rate of each of its steps."""

from __future__ import annotations

import math

import torch

from genrec_bench.backbones.base import Backbone
from genrec_bench.experiments.config import TrainingConfig


def planned_steps(rows: int, config: TrainingConfig) -> int:
    """Optimiser steps that the learning rate is planned over, and after which training ends.

    rows: of the training data. With `training.schedule` = "released" an epoch whose passes leave a shorter last step
    is planned without it, though it is made: fewer epochs are trained than asked for.
    Source of "released": transformers 4.51.0, trainer.py, set_initial_training_values.
    """
    passes = math.ceil(rows / config.batch_size)
    if config.schedule == "released":
        return max(1, passes // config.accumulation) * config.epochs
    return math.ceil(passes / config.accumulation) * config.epochs


def learning_rate(step: int, total: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine wave over the steps left; `step` counts from 0.

    The wave reaches 0 at step `total`, one after the last: the last step's own rate is small, but not 0. The warm-up
    begins one step above 0 or, with `training.schedule` = "released", at 0 (transformers 4.51.0, optimization.py).
    """
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return config.learning_rate * (step + 1 if config.schedule == "exact" else step) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))


def adamw(model: Backbone, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; norm weights and other vectors are not decayed, as usual for transformers.

    Without `training.decay_biases` the groups are those of Hugging Face's Trainer (transformers 4.51.0,
    get_decay_parameter_names), which goes by names: all but norms and what has "bias" in its name.
    """
    fused = next(model.parameters()).device.type in ("cpu", "cuda")  # one pass over memory instead of a dozen
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim < 2 or ("bias" in name.lower() and not config.decay_biases)
        (others if exempt else decayed).append(parameter)
    return torch.optim.AdamW([{"params": decayed, "weight_decay": config.weight_decay},
                              {"params": others, "weight_decay": 0.0}], lr=config.learning_rate, fused=fused)
