"""Forward passes cut into parts of users, so that what autograd keeps of them fits into a bound."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from genrec_bench.core.errors import UserError

GIB = 2 ** 30
# As measured of pairwise steps: beside the logits live their copy while parts are joined, and in the backward pass the
# gradients of what was made of them; beside what autograd keeps of a part live the gradients on their way through it.
LOGITS_AT_ONCE = 6
PART_OVER_KEPT = 1.5


def kept_bytes(forward: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that autograd keeps of a forward pass for its backward pass, weights left out.

    A pure function of the shapes in it and of the network's mode: tensors are counted whole, and once each. The random
    numbers that come next are those that would have come without.
    """
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices), torch.enable_grad(), saved_tensors_hooks(count, lambda tensor: tensor):
        result = forward()  # it holds what was counted, so that no address is used twice
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    del result
    return sum(size for address, size in kept.items() if address not in weights)


def users_at_once(users: int, *, kept: int, logits: int, memory_gib: float, once: int = 0) -> int:
    """How many of a batch's users go through the network together.

    kept: bytes that autograd keeps of one user; once: whatever their number. logits: bytes of the whole batch's logits,
    which objectives see at once. Parts are of like size. Raises: UserError where the bound is too small for one user at
    a time.
    """
    fixed, each = LOGITS_AT_ONCE * logits + PART_OVER_KEPT * once, PART_OVER_KEPT * kept
    bound = memory_gib * GIB
    if fixed + each > bound:
        least = math.ceil((fixed + each) / GIB * 100) / 100
        raise UserError(f"training.memory_gib = {memory_gib:g} is too small for a batch of {users} rows: it takes at "
                        f"least {least:.2f}, of which {fixed / GIB:.2f} for the logits of all rows. Raise it, or lower "
                        "training.batch_size.")
    parts = math.ceil(users / min(users, int((bound - fixed) // each)))
    return math.ceil(users / parts)


def users_within(memory_gib: float, *, kept: int, logits: int, once: int = 0) -> int:
    """How many users like one whose pass keeps so many bytes and has so many of logits fit into a bound; at least 0."""
    return max(0, int((memory_gib * GIB - PART_OVER_KEPT * once) // (LOGITS_AT_ONCE * logits + PART_OVER_KEPT * kept)))


def in_parts(forward: Callable[[slice], Tensor], users: int, at_once: int) -> Tensor:
    """`forward` of all users, part after part, joined, so that the activations of one part live at a time.

    forward: a slice of users -> a tensor with those users' rows. The backward pass computes every part once more but
    the last, which it begins with.
    """
    *first, last = (slice(start, start + at_once) for start in range(0, users, at_once))
    if not first:
        return forward(last)
    return torch.cat([*(checkpoint(forward, part, use_reentrant=False) for part in first), forward(last)])
