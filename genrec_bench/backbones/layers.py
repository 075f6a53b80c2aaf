"""What layers of all networks compute while training, in few passes over memory: on a CPU these cost as much as matrix
products.

Under autocast everything here is in its precision; sums of a norm and within a softmax are in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from genrec_bench.backbones.dropout import noise
from genrec_bench.core.devices import compute_dtype

# How a batch is cut by length. Costs are counted in tokens of a short history; measured of small networks on one core.
PART = 64  # what a part costs, whatever is in it
LONG = 64  # tokens of a history from which on its attention costs more than all the rest of it
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
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        result = torch.mul(x, scale, out=torch.empty_like(x))
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
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(query.dtype)  # torch does not refuse another precision: it reads it wrongly
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale)


class Shape(NamedTuple):
    """How many users a group has, and rows of queries and of keys for each, padded alike."""

    users: int
    queries: int
    keys: int


@dataclass(frozen=True)
class Group:
    """Users side by side in a batch whose attention is computed together. mask: (users, 1, 1, keys) or (queries, keys),
    0 or -inf. learned: (1, heads, queries, keys) that is added to scores with a gradient, or None."""

    shape: Shape
    mask: Tensor
    learned: Tensor | None = None

    @cached_property
    def total(self) -> Tensor:
        """All that is added to the scores; made once for all layers."""
        return self.mask if self.learned is None else self.learned + self.mask

    @cached_property
    def values(self) -> Tensor:
        """The same without gradient."""
        return self.mask if self.learned is None else self.learned.detach() + self.mask


def attention(source: Tensor, memory: Tensor | None, groups: Sequence[Group], rate: float) -> Tensor:
    """Unscaled softmax attention with dropout of its weights, group by group, (rows, heads * d) out.

    source: (rows, 1, heads, d) queries, or (rows, 3, heads, d) with keys and values where memory is None. memory:
    (rows, 2, heads, d) keys and values. groups: several on a CPU alone. Rows are theirs, one user after the other; rows
    behind them take no part, and 0 comes out. rate: at which weights are dropped.
    Written out on a CPU, as torch's fused attention has no fast path there for a bias that learns, for dropout, or for
    few queries.
    """
    if source.device.type == "cpu":
        learned = [group.learned for group in groups if group.learned is not None]
        with torch.autocast("cpu", enabled=False):  # all is in its precision already
            return Attention.apply(source, memory, groups, rate, *learned)
    group, = groups
    memory = source[:, 1:] if memory is None else memory
    query, key, value = (x.unflatten(0, (group.shape.users, -1)).transpose(1, 2)
                         for x in (source[:, 0], memory[:, 0], memory[:, 1]))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=group.total.to(query.dtype), dropout_p=rate,
                                           scale=1.0)
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


class Attention(torch.autograd.Function):
    """`attention` whose only copies are those that change the places of heads and positions.

    Softmax and what is added before it are in float32 at least. Nothing but what `save_for_backward` takes is kept, so
    that passes that are computed twice to save memory do so.
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, memory: Tensor | None, groups: Sequence[Group], rate: float,
                *learned: Tensor) -> Tensor:
        heads, kept = source.shape[2], []
        result = source.new_zeros(len(source), *source.shape[2:])
        shapes = [group.shape for group in groups]
        for group, (q, k, v, out) in zip(groups, _parts(shapes, source, memory, result), strict=True):
            query, key, value = (_heads_first(x) for x in (q, k, v))
            scores = torch.bmm(query, key.transpose(1, 2))
            scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
            scores.unflatten(0, (group.shape.users, heads)).add_(group.values)
            weights = scores.softmax(2).to(query.dtype)
            drops = noise(weights, rate) if rate else None
            mixed = torch.bmm(weights if drops is None else weights * drops, value)
            out.copy_(mixed.unflatten(0, (group.shape.users, heads)).transpose(1, 2))
            kept += [query, key, value, weights, drops]
        ctx.save_for_backward(*kept)
        ctx.shapes, ctx.learned = shapes, [group.learned is not None for group in groups]
        ctx.read = source.shape, None if memory is None else memory.shape
        return result.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        source, memory = (None if shape is None else gradient.new_zeros(shape) for shape in ctx.read)
        kept, of_learned, heads = ctx.saved_tensors, [], source.shape[2]
        parts = _parts(ctx.shapes, source, memory, gradient.unflatten(1, source.shape[2:]))
        for number, (shape, (*places, given)) in enumerate(zip(ctx.shapes, parts, strict=True)):
            query, key, value, weights, drops = kept[5 * number:5 * number + 5]
            given = _heads_first(given)
            dropped = weights if drops is None else weights * drops
            of_weights = torch.bmm(given, value.transpose(1, 2))
            if drops is not None:
                of_weights.mul_(drops)
            # what autograd itself calls for a softmax: one pass instead of four
            of_scores = torch._softmax_backward_data(of_weights, weights, 2, weights.dtype)
            found = (torch.bmm(of_scores, key), torch.bmm(of_scores.transpose(1, 2), query),
                     torch.bmm(dropped.transpose(1, 2), given))
            for place, own in zip(places, found, strict=True):
                place.copy_(own.unflatten(0, (shape.users, heads)).transpose(1, 2))
            if ctx.learned[number]:
                summed = of_scores.unflatten(0, (shape.users, heads)).sum(0, keepdim=True)
                of_learned.append(summed.to(torch.promote_types(summed.dtype, torch.float32)))
        return source, memory, None, None, *of_learned


def _parts(shapes: Sequence[Shape], source: Tensor, memory: Tensor | None, result: Tensor) -> Iterator[list[Tensor]]:
    """Of each group views of its queries, keys, values and results, (users, rows, heads, d)."""
    memory = source[:, 1:] if memory is None else memory
    first = begin = 0
    for users, queries, keys in shapes:
        last, end = first + users * queries, begin + users * keys
        yield [x.unflatten(0, (users, rows)) for x, rows in (
            (source[first:last, 0], queries), (memory[begin:end, 0], keys), (memory[begin:end, 1], keys),
            (result[first:last], queries))]
        first, begin = last, end


def _heads_first(x: Tensor) -> Tensor:
    """(users, rows, heads, d) -> (users * heads, rows, d)"""
    return x.transpose(1, 2).flatten(0, 1)


def like_length(tokens: Tensor) -> list[tuple[slice, int]]:
    """A batch of rows cut so that little is padded: parts of users, side by side, and how long the longest of each is.

    tokens: (B,) of each row's history, on a CPU; rows of like length lie side by side where a batch is sorted. The
    parts cost least together: each its rows times the longest, times how attention grows with it, and `PART` once.
    """
    lengths = tokens.clamp(min=1).tolist()
    if not lengths:
        return [(slice(0, 0), 1)]
    ends = [*range(ROWS, len(lengths), ROWS), len(lengths)]
    starts = [0, *ends]
    most = [max(lengths[start:end]) for start, end in zip(starts, ends, strict=False)]
    best = [(0.0, 0)]  # least cost of all up to an end, and where its last part begins
    for number, end in enumerate(ends, 1):
        longest, found = 0, []
        for first in range(number - 1, -1, -1):
            longest = max(longest, most[first])
            alone = PART + (end - starts[first]) * longest * (1 + longest / LONG)
            found.append((best[first][0] + alone, first))
            if alone > min(found)[0]:  # a longer part costs more than all of that
                break
        best.append(min(found))
    parts, number = [], len(ends)
    while number:
        first = best[number][1]
        parts.append((slice(starts[first], starts[number]), max(most[first:number])))
        number = first
    return parts[::-1]
