"""What layers of all networks compute while training, in few passes over memory: on a CPU these cost as much as matrix
products.

Under autocast everything here is in its precision; sums of a norm and within a softmax are in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from genrec_bench.backbones.dropout import noise
from genrec_bench.core.devices import compute_dtype

# What cutting a batch by length weighs up, in tokens of a short history; measured of small networks on one core.
PART = 64  # a part's own cost, whatever is in it
EVEN = 64  # tokens of a history from which on attention costs more than all the rest
ROWS = 8  # parts end at multiples of this: matrix products in bfloat16 are slow at shapes that were not seen before
TOKENS = 128  # and so are rows of a pass, of which some are padded


def fused_weight(*matrices: Tensor, norm: Tensor | None = None) -> Tensor:
    """Weights of linear layers that read the same as one matrix, (outputs, inputs), in the precision of autocast where
    that is on, with those of the norm before them multiplied in."""
    matrix = torch.cat(matrices) if len(matrices) > 1 else matrices[0]
    return (matrix if norm is None else matrix * norm).to(compute_dtype(matrix))


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """The RMS norm without its weights, which `fused_weight` takes."""
    if x.device.type == "cpu" and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            return RmsNorm.apply(x, eps)
    return F.rms_norm(x, x.shape[-1:], None, eps)


class RmsNorm(torch.autograd.Function):
    """x over the root of the mean of its squares, with one number a row kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        sums = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=sums)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
        result = x * scale
        ctx.save_for_backward(result, scale)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        result, scale = ctx.saved_tensors
        along = (gradient * result).mean(dim=-1, keepdim=True)
        return torch.addcmul(gradient, result, along, value=-1).mul_(scale), None


def scaled_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
                     scale: float | None = None) -> Tensor:
    """torch's attention, causal without a mask: (B, heads, Q, d) of queries, and of keys and values (B, heads, S, d).

    mask: bool or added to the scores, broadcasts to (B, heads, Q, S), without gradient. scale: None = 1 / sqrt(d).
    On a CPU in float32 whatever autocast says: torch's kernel is seven times slower in bfloat16.
    """
    if query.device.type == "cpu" and (reduced := compute_dtype(query)) == torch.bfloat16:
        query, key, value = (x.float() for x in (query, key, value))
        with torch.autocast("cpu", enabled=False):
            return scaled_attention(query, key, value, mask, scale).to(reduced)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale)


@dataclass(frozen=True)
class Group:
    """Users side by side in a batch whose attention is computed together. users: how many. queries, keys: rows of each,
    padded alike. mask: (users, 1, 1, keys) or (queries, keys), 0 or -inf. learned: (1, heads, queries, keys) that is
    added to scores with a gradient, or None."""

    users: int
    queries: int
    keys: int
    mask: Tensor
    learned: Tensor | None = None
    _biases: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False)

    def bias(self, dtype: torch.dtype) -> Tensor:
        """What is added to the scores, without gradient, in their precision; made once for all layers."""
        if dtype not in self._biases:
            mask = self.mask.to(dtype)
            self._biases[dtype] = mask if self.learned is None else self.learned.detach().to(dtype) + mask
        return self._biases[dtype]


def attention(source: Tensor, memory: Tensor | None, groups: Sequence[Group], rate: float) -> Tensor:
    """Unscaled softmax attention with dropout of its weights, group by group, (rows, heads * d) out.

    source: (rows, 1, heads, d) queries, or (rows, 3, heads, d) with keys and values where memory is None. memory:
    (rows, 2, heads, d) keys and values. Rows are those of the groups, one user after the other; rows behind them take
    no part, and 0 comes out. rate: at which weights are dropped.
    Written out on a CPU, as torch's fused attention has no fast path there for a bias that learns, for dropout, or for
    few queries.
    """
    if source.device.type == "cpu":
        learned = [group.learned for group in groups if group.learned is not None]
        with torch.autocast("cpu", enabled=False):  # all is in its precision already
            return Attention.apply(source, memory, groups, rate, *learned)
    group, = groups
    memory = source[:, 1:] if memory is None else memory
    query, key, value = (x.unflatten(0, (group.users, -1)).transpose(1, 2)
                         for x in (source[:, 0], memory[:, 0], memory[:, 1]))
    bias = group.mask if group.learned is None else group.learned + group.mask
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype), dropout_p=rate, scale=1.0)
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


class Attention(torch.autograd.Function):
    """`attention` whose only copies are those that change the places of heads and positions."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, memory: Tensor | None, groups: Sequence[Group], rate: float,
                *learned: Tensor) -> Tensor:
        result, kept = source.new_zeros(len(source), *source.shape[2:]), []
        for group, q, k, v, out in _parts(groups, source, memory, result):
            query, key, value = (_heads_first(x) for x in (q, k, v))
            scores = torch.bmm(query, key.transpose(1, 2))
            scores.view(group.users, -1, group.queries, group.keys).add_(group.bias(scores.dtype))
            weights = scores.softmax(2)
            drops = noise(weights, rate) if rate else None
            mixed = torch.bmm(weights if drops is None else weights * drops, value)
            out.copy_(mixed.unflatten(0, (group.users, -1)).transpose(1, 2))
            kept += [query, key, value, weights, drops]
        ctx.save_for_backward(*kept)
        ctx.groups, ctx.like, ctx.own = groups, (source, memory), memory is None
        return result.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        source, memory = (None if x is None else torch.zeros_like(x) for x in ctx.like)
        kept, of_learned = ctx.saved_tensors, []
        gradient = gradient.unflatten(1, source.shape[2:])
        for number, (group, q, k, v, given) in enumerate(_parts(ctx.groups, source, memory, gradient)):
            query, key, value, weights, drops = kept[5 * number:5 * number + 5]
            given = _heads_first(given)
            dropped = weights if drops is None else weights * drops
            of_weights = torch.bmm(given, value.transpose(1, 2))
            if drops is not None:
                of_weights.mul_(drops)
            of_scores = torch._softmax_backward_data(of_weights, weights, 2, weights.dtype)
            for place, found in ((q, torch.bmm(of_scores, key)), (k, torch.bmm(of_scores.transpose(1, 2), query)),
                                 (v, torch.bmm(dropped.transpose(1, 2), given))):
                place.copy_(found.unflatten(0, (group.users, -1)).transpose(1, 2))
            if group.learned is not None:
                summed = of_scores.unflatten(0, (group.users, -1)).sum(0, keepdim=True)
                of_learned.append(summed.to(group.learned.dtype))
        return source, memory, None, None, *of_learned


def _parts(groups: Sequence[Group], source: Tensor, memory: Tensor | None,
           result: Tensor) -> Iterator[tuple[Group, Tensor, Tensor, Tensor, Tensor]]:
    """Each group with views of its queries, keys, values and results, (users, rows, heads, d)."""
    memory = source[:, 1:] if memory is None else memory
    first = begin = 0
    for group in groups:
        last, end = first + group.users * group.queries, begin + group.users * group.keys
        views = source[first:last, 0], memory[begin:end, 0], memory[begin:end, 1], result[first:last]
        yield group, *(x.unflatten(0, (group.users, -1)) for x in views)
        first, begin = last, end


def _heads_first(x: Tensor) -> Tensor:
    """(users, rows, heads, d) -> (users * heads, rows, d)"""
    return x.transpose(1, 2).flatten(0, 1)


def like_length(tokens: Tensor) -> list[tuple[slice, int]]:
    """A batch of rows cut so that little is padded: parts of users, side by side, and how long the longest of each is.

    tokens: (B,) of each row's history, on a CPU; rows of like length lie side by side where a batch is sorted. The
    parts cost least together: each its rows times the longest, times how attention grows with it, and `PART` once.
    """
    lengths = tokens.tolist()
    ends = [*range(ROWS, len(lengths), ROWS), len(lengths)]
    starts = [0, *ends]
    most = [max(lengths[start:end]) for start, end in zip(starts, ends, strict=False)]
    best = [(0.0, 0)]  # least cost of all up to an end, and where its last part begins
    for number, end in enumerate(ends, 1):
        longest, found = 0, []
        for first in range(number - 1, -1, -1):
            longest = max(longest, most[first])
            found.append((best[first][0] + PART + (end - starts[first]) * longest * (1 + longest / EVEN), first))
        best.append(min(found))
    parts, number = [], len(ends)
    while number:
        first = best[number][1]
        parts.append((slice(starts[first], starts[number]), max(most[first:number])))
        number = first
    return parts[::-1]
