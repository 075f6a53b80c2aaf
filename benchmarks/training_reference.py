"""How Hugging Face's models are trained to recommend, as APAO's scripts do it: shuffled batches, plain sequences.

A batch is padded to its longest history. Of a pairwise step every negative is a sequence of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.reference import padded
from genrec_bench.contracts import EOS, PAD

NO_LABEL = -100


def cross_entropy(model: Any, histories: list[np.ndarray], targets: np.ndarray, *, eos: bool = False) -> Tensor:
    """Mean loss of a batch over the tokens of its targets, as the model computes it from labels.

    model: a T5 or Llama of transformers; Llama reads history and target as one sequence, padded on the left.
    histories: token ids, closed as the model wants them. targets: (B, T). eos: EOS is one more token of the target.
    """
    if eos:
        targets = np.pad(targets, ((0, 0), (0, 1)), constant_values=EOS)
    labels = torch.from_numpy(targets)
    if model.config.is_encoder_decoder:
        tokens, mask = padded(histories, left=False)
        return model(input_ids=tokens, attention_mask=mask, labels=labels.masked_fill(labels == PAD, NO_LABEL)).loss
    tokens, mask = padded([np.concatenate(pair) for pair in zip(histories, targets, strict=True)], left=True)
    unread = torch.full_like(tokens[:, :tokens.shape[1] - labels.shape[1]], NO_LABEL)
    return model(input_ids=tokens, attention_mask=mask, labels=torch.cat([unread, labels], dim=1)).loss


def pairwise(model: Any, histories: list[np.ndarray], targets: np.ndarray, negatives: np.ndarray, *,
             weight: float) -> Tensor:
    """Mean over a batch of cross-entropy + weight * the mean of APAO's pairwise prefix losses, with a T5.

    targets: (B, T), negatives: (B, N, T) token ids. The encoder reads a history once; its states are repeated for the
    1 + N sequences of the row, which the decoder reads one by one.
    """
    tokens, mask = padded(histories, left=False)
    states = model.get_encoder()(input_ids=tokens, attention_mask=mask).last_hidden_state
    rows, count, depth = negatives.shape
    labels = torch.from_numpy(np.concatenate([targets[:, None], negatives], axis=1)).flatten(0, 1)
    logits = model(encoder_outputs=(states.repeat_interleave(1 + count, dim=0),),
                   attention_mask=mask.repeat_interleave(1 + count, dim=0),
                   decoder_input_ids=F.pad(labels, (1, -1), value=PAD), use_cache=False).logits
    logps = logits.log_softmax(2).gather(2, labels[:, :, None])[:, :, 0].view(rows, 1 + count, depth)
    scores = logps.cumsum(2)
    lead = (scores[:, 1:] - scores[:, :1]).masked_fill(~first_of_their_kind(targets, negatives), -torch.inf)
    losses = F.softplus(lead.logsumexp(1))
    return (weight * losses.mean(1) - logps[:, 0].mean(1)).mean()


def first_of_their_kind(targets: np.ndarray, negatives: np.ndarray) -> Tensor:
    """(B, N, T) bool: the negative's first m codes are neither the target's nor an earlier negative's, by loops."""
    keep = torch.zeros(negatives.shape, dtype=torch.bool)
    for row, (target, others) in enumerate(zip(targets.tolist(), negatives.tolist(), strict=True)):
        for length in range(1, len(target) + 1):
            seen = {tuple(target[:length])}
            for place, other in enumerate(others):
                prefix = tuple(other[:length])
                if prefix not in seen:
                    seen.add(prefix)
                    keep[row, place, length - 1] = True
    return keep


def exact_norms(model: Any) -> Any:
    """The model with norms that compute in its own precision; transformers squares and averages in float32."""
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = partial(_norm, module)
    return model


def _norm(module: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], module.weight, module.variance_epsilon)
