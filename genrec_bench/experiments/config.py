"""What a run is: resolved settings, from suite, profile and `--set`, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genrec_bench.core import settings
from genrec_bench.core.settings import setting


@dataclass(frozen=True)
class SplitConfig:
    """Leave-one-out: last item tests, the one before validates, every earlier one but the first trains."""

    max_history: int = setting(20, "items of history kept, newest last (APAO 5.1.3)", low=1)
    train_targets_per_user: int = setting(0, "newest training targets kept of each user, 0 = all", low=0)
    max_users: int = setting(0, "first users kept, 0 = all; for smoke tests", low=0)


@dataclass(frozen=True)
class TrainingConfig:
    """The training loop. Defaults are APAO's (5.1.3), with gradients averaged over accumulation steps."""

    learning_rate: float = setting(5e-4, "peak learning rate of AdamW", low=0.0)
    weight_decay: float = setting(0.01, "decoupled weight decay", low=0.0)
    warmup_ratio: float = setting(0.01, "share of all steps with linear warm-up", low=0.0, high=1.0)
    epochs: int = setting(200, "most epochs; the cosine schedule runs over all of them", low=1)
    patience: int = setting(20, "validations without improvement before stopping", low=1)
    batch_size: int = setting(128, "instances in one forward pass", low=1)
    accumulation: int = setting(8, "forward passes in one optimiser step, gradients averaged", low=1)
    bucket_steps: int = setting(1, "steps whose rows are sorted by length together; 1 = every step a plain sample",
                                low=1)
    clip_norm: float = setting(1.0, "largest gradient norm, 0 = no clipping", low=0.0)
    valid_every: int = setting(1, "epochs between validations", low=1)
    accumulation_reduction: str = setting(
        "mean", "gradients of the passes of a step: mean over its rows, or sum of the passes' means (what the released "
        "APAO scripts do under transformers 4.51)", choices=("mean", "sum"), added=True)
    selection: str = setting(
        "ndcg@10", "what the best epoch is chosen by, on validation: NDCG@10 under the search used at test, the mean "
        "loss (APAO's released CE and MSL), or the loss of the last batch alone (its released APAO models)",
        choices=("ndcg@10", "loss", "last_batch_loss"), added=True)
    group_users: bool = setting(
        False, "shuffle users instead of rows, so that the rows of a user are trained together; a decoder-only network "
        "then reads them in one causal pass", added=True)
    memory_gib: float = setting(
        0.0, "most memory of a forward pass and its backward pass beside the network, in GiB: users go through them in "
        "as many parts as that takes, all but one computed twice; 0 = all at once, as always where a user's rows are "
        "packed (group_users). With dropout other parts draw other masks", low=0.0, added=True)


@dataclass(frozen=True)
class DecodingConfig:
    """Constrained beam search, the same at validation and test."""

    num_beams: int = setting(20, "beam width B (APAO 5.1.3)", low=1)
    normaliser: str = setting("flat", "vocabulary of the softmax", choices=("flat", "trie"))
    eos: bool = setting(False, "the log-probability of EOS behind a semantic ID counts in its score, as in Hugging "
                               "Face generate of the released scripts", added=True)
    batch_size: int = setting(256, "most users decoded together", low=1)
    temperature: float = setting(1.0, "what the logits are divided by before the softmax", low=1e-6, added=True)
    memory_gib: float = setting(2.0, "most memory of a decoding pass, in GiB; users are decoded in as many passes as "
                                     "that takes", low=1e-3, added=True)
    precision: str = setting("float32", "what the network computes in; softmax and scores stay in float32",
                             choices=("float32", "bfloat16"), added=True)


@dataclass(frozen=True)
class NegativesConfig:
    """Sampled negatives, drawn from their own seed stream: the same for every objective of one seed."""

    pool: str = setting("ids", "uniform over distinct semantic IDs (APAO), or over items", choices=("ids", "items"))
    redraw: str = setting("epoch", "when they are drawn again", choices=("epoch", "never"))


@dataclass(frozen=True)
class EvaluationConfig:
    """The same for every method of a table."""

    max_k: int = setting(20, "length of every list that is scored; selection needs NDCG@10", low=10, high=255)
    exclude_history: bool = setting(False, "take the user's own history out of the ranking; a generative row then "
                                           "needs a wider decoding.num_beams, as its list is cut after the search")


@dataclass(frozen=True)
class FirstStage:
    """What is trained before: a run of its own that differs from this one in these settings alone."""

    objective: tuple[dict, ...] = setting((), "specs of its objectives")
    training: TrainingConfig = setting(TrainingConfig(), "its training settings")
    negatives: NegativesConfig | None = setting(None, "its negatives, where an objective needs them")
    continues: bool = setting(True, "start from its weights; false = only the reference network has them")


@dataclass(frozen=True)
class RunConfig:
    """One run: either a `baseline`, or tokenizer + backbone + objectives trained by our loop.

    dataset, tokenizer, backbone and each of objective are specs `{"name": ..., <setting>: ...}` with all
    defaults filled in; baseline is `{"name": ..., "system": ..., <setting>: ...}`. label: the row's name in
    tables; profile: which profile made it. Neither names the run.
    """

    label: str
    profile: str
    dataset: Mapping[str, Any]
    seed: int
    split: SplitConfig = field(default_factory=SplitConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    baseline: Mapping[str, Any] | None = None
    tokenizer: Mapping[str, Any] | None = None
    backbone: Mapping[str, Any] | None = None
    objective: tuple[Mapping[str, Any], ...] = ()
    training: TrainingConfig | None = None
    decoding: DecodingConfig | None = None
    negatives: NegativesConfig | None = None
    first_stage: FirstStage | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the record; parts that do not apply are left out."""
        plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in settings.to_dict(self).items()}
        return {k: v for k, v in plain.items() if v not in (None, [])}

    def first(self) -> RunConfig | None:
        """The run of the first stage, or None."""
        stage = self.first_stage
        if stage is None:
            return None
        return dataclasses.replace(self, label=f"{self.label}: first stage", objective=stage.objective,
                                   training=stage.training, negatives=stage.negatives, first_stage=None)


def from_dict(data: Mapping[str, Any]) -> RunConfig:
    """The configuration that `RunConfig.to_dict` wrote. Raises: UserError."""
    parts = {k: settings.build(_PARTS[k], v, k) if k in _PARTS else v for k, v in data.items()}
    return RunConfig(**parts)


SECTIONS: dict[str, type] = {"split": SplitConfig, "training": TrainingConfig, "second_stage": TrainingConfig,
                             "decoding": DecodingConfig, "negatives": NegativesConfig, "evaluation": EvaluationConfig}
_PARTS = {**SECTIONS, "first_stage": FirstStage}
