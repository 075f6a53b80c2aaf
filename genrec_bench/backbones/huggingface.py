"""What the networks share that take their weights from `transformers`: nothing may be lost on the way unsaid."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genrec_bench.backbones.base import Backbone
from genrec_bench.contracts import PAD
from genrec_bench.core.errors import UserError

# Other names of the embedding table; they count as it where they hold the same numbers.
TIED = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
HISTORY, LEVELS = 24, 4  # tokens of the batch on which logits are compared


def check_class(model: Any, name: str, model_type: str) -> None:
    """Refuse anything but a `transformers` model of this class and type. Raises: UserError.

    Relatives such as MT5 have the same names of weights and settings, and compute something else.
    """
    if any(cls.__name__ == name for cls in type(model).__mro__) and model.config.model_type == model_type:
        return
    inner = " It is a wrapper of a compiled model: give the model inside, `model._orig_mod`." \
        if hasattr(model, "_orig_mod") else ""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    raise UserError(f"from_huggingface takes a {name} with model_type {model_type!r}, got a {type(model).__name__}"
                    f"{f' with model_type {kind!r}' if kind else ''}.{inner}")


def check_settings(faults: dict[str, bool], what: str) -> None:
    """Refuse a checkpoint by the faults that it has. Raises: UserError."""
    wrong = [name for name, fault in faults.items() if fault]
    if wrong:
        raise UserError(f"this checkpoint is not a {what} of ours: {'; '.join(wrong)}.")


def copy_weights(ours: Backbone, model: Any, table: str) -> None:
    """Copy the weights of `model` by name, as float32. table: the name of the embedding table.

    Raises: UserError that names the weights which `ours` has no place for or which the checkpoint lacks.
    """
    given = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    known = ours.state_dict()
    left = [n for n in given if n not in known and not (n in TIED and torch.equal(given[n], given[table]))]
    absent = [n for n, tensor in known.items() if n not in given or given[n].shape != tensor.shape]
    if left or absent:
        parts = [f"{what} {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}"
                 for what, names in (("it has weights that this network does not have:", left),
                                     ("it lacks these, or has them in another shape:", absent)) if names]
        raise UserError(f"this checkpoint is not one of our network; {'; '.join(parts)}.")
    ours.load_state_dict({name: given[name].float() for name in known})


@torch.no_grad()
def check_logits(ours: Backbone, model: Any, theirs: Callable[[Any, Tensor, Tensor], Tensor], *,
                 longest: int = HISTORY) -> None:
    """The last defence: compare the logits on one random batch, computed by a float32 copy of `model`.

    theirs: (model, histories (B, S), candidates (B, T)) -> (B, T, V). longest: history that `ours` can read.
    Where the model is in half precision, its copy keeps rounded positions; only gross differences count then.
    Raises: UserError.
    """
    plain = copy.deepcopy(model).cpu().float().eval()
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(PAD + 1, model.config.vocab_size, (2, max(1, min(longest, HISTORY)) + LEVELS),
                           generator=random)
    histories, candidates = tokens[:, :-LEVELS], tokens[:, -LEVELS:]
    expected = theirs(plain, histories, candidates).float()
    seen = ours.token_logits(histories, candidates[:, None])[:, 0]
    exact = all(t.dtype in (torch.float32, torch.float64) for t in model.parameters())
    off, size = float((seen - expected).abs().max()), float(expected.abs().max())
    if not off <= (1e-4 if exact else 0.1) * size:
        raise UserError(f"this checkpoint computes something that our network does not: on a random batch their logits "
                        f"differ by up to {off:.3g}, where the largest is {size:.3g}.")
