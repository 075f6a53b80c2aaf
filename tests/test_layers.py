"""Attention over groups, norms and cuts of a batch: against torch's own, naive loops and numbers by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.backbones.dropout import noise
from genrec_bench.backbones.layers import (
    LONG,
    PART,
    ROWS,
    Group,
    Shape,
    attention,
    like_length,
    rms_norm,
    scaled_attention,
)
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.contracts import PAD
from genrec_bench.core.devices import autocast

HEADS, WIDTH = 3, 5
SHAPES = ((2, 4, 4), (3, 2, 2))  # users, queries, keys of two groups


def groups(shapes: tuple[tuple[int, int, int], ...], *, learned: bool = True) -> list[Group]:
    """Groups whose last key is masked for the first user, with a bias of their own."""
    made = []
    for users, queries, keys in shapes:
        mask = torch.zeros(users, 1, 1, keys)
        mask[0, ..., keys - 1:] = -torch.inf if keys > 1 else 0.0
        bias = torch.randn(1, HEADS, queries, keys, requires_grad=True) if learned else None
        made.append(Group(Shape(users, queries, keys), mask, bias))
    return made


def by_group(source: Tensor, memory: Tensor, every: list[Group]) -> Iterator[tuple[Group, Tensor, Tensor, Tensor]]:
    """Queries, keys and values of each group, (users, heads, rows, d)."""
    first = begin = 0
    for group in every:
        (users, queries, keys) = group.shape
        last, end = first + users * queries, begin + users * keys
        views = source[first:last, 0], memory[begin:end, 0], memory[begin:end, 1]
        yield group, *(x.unflatten(0, (users, -1)).transpose(1, 2) for x in views)
        first, begin = last, end


@pytest.mark.parametrize("shapes", [SHAPES, ((1, 1, 1),), ((2, 3, 7), (1, 3, 2))])
@pytest.mark.parametrize("learned", [True, False])
def test_attention_is_torchs_group_by_group(shapes: tuple, learned: bool) -> None:
    """Results and gradients to rounding; rows behind the groups give 0 and get none."""
    torch.manual_seed(0)
    every = groups(shapes, learned=learned)
    own = all(queries == keys for _, queries, keys in shapes)
    rows, read = (sum(users * of for users, of in zip(*part, strict=True))
                  for part in (list(zip(*shapes, strict=True))[:2], list(zip(*shapes, strict=True))[::2]))
    source = torch.randn(rows + 2, 3 if own else 1, HEADS, WIDTH, requires_grad=True)
    memory = None if own else torch.randn(read + 1, 2, HEADS, WIDTH, requires_grad=True)
    written = attention(source, memory, every, 0.0)
    masks = [group.mask if group.learned is None else group.learned + group.mask for group in every]
    parts = by_group(source, source[:, 1:] if own else memory, every)
    mixed = [F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
             for mask, (_, q, k, v) in zip(masks, parts, strict=True)]
    expected = torch.cat([x.transpose(1, 2).flatten(0, 1).flatten(1) for x in mixed])
    assert written.shape == (rows + 2, HEADS * WIDTH) and not written[rows:].any()
    torch.testing.assert_close(written[:rows], expected, atol=1e-6, rtol=1e-6)
    inputs = [x for x in (source, memory, *(g.learned for g in every)) if x is not None]
    upstream = torch.randn(rows, HEADS * WIDTH)
    for ours, theirs in zip(*(torch.autograd.grad(x[:rows], inputs, upstream) for x in (written, expected)),
                            strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_attention_drops_weights_after_the_softmax() -> None:
    """By a loop over users, heads and queries; the gradient is that of the same loop."""
    torch.manual_seed(1)
    every = groups(SHAPES[:1])
    source = torch.randn(8, 3, HEADS, WIDTH, requires_grad=True)
    torch.manual_seed(7)
    result = attention(source, None, every, 0.4)
    torch.manual_seed(7)
    kept = noise(torch.empty(2 * HEADS, 4, 4), 0.4).view(2, HEADS, 4, 4)
    (group, query, key, value), = by_group(source, source[:, 1:], every)
    bias = group.learned + group.mask
    rows = [((key[u, h] @ query[u, h, q] + bias[u, h, q]).softmax(0) * kept[u, h, q]) @ value[u, h]
            for u in range(2) for q in range(4) for h in range(HEADS)]
    expected = torch.stack(rows).view(8, HEADS * WIDTH)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(*(torch.autograd.grad(x.square().sum(), (source, group.learned))
                              for x in (result, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_norm_is_torchs() -> None:
    torch.manual_seed(2)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(rms_norm(x, 1e-6), F.rms_norm(x, (6,), None, 1e-6))
    assert torch.autograd.gradcheck(lambda y: rms_norm(y, 0.1), (x,))


def relative(near: Tensor, exact: Tensor) -> float:
    """Root mean square of the error as a share of the exact values."""
    return float(((near.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()).detach())


def test_bfloat16_rounds_little_more_than_it_must() -> None:
    """Results and gradients against float64; a number of bfloat16 is off by up to 0.4 %, by 0.17 % in the mean."""
    torch.manual_seed(4)
    x, upstream = torch.randn(300, 64, dtype=torch.float64), torch.randn(300, 64, dtype=torch.float64)
    x, upstream = (y.bfloat16().double() for y in (x, upstream))
    found = []
    for dtype in (torch.float64, torch.bfloat16):
        given = x.to(dtype).requires_grad_()
        result = rms_norm(given, 1e-6)
        assert result.dtype == dtype
        found.append((result.detach(), *torch.autograd.grad(result, given, upstream.to(dtype))))
    (exact, slope), (near, near_slope) = found
    assert relative(near, exact) < 0.002 and relative(near_slope, slope) < 0.004
    assert torch.equal(near, F.rms_norm(x.bfloat16(), (64,), None, 1e-6)), "training and scoring see the same"
    source, every = torch.randn(8, 3, HEADS, WIDTH).bfloat16(), groups(SHAPES[:1])
    exact_every = [Group(g.shape, g.mask.double(), g.learned.detach().double().requires_grad_()) for g in every]
    results = [attention(given.requires_grad_(), None, some, 0.0)
               for given, some in ((source.double(), exact_every), (source, every))]
    assert relative(results[1], results[0]) < 0.01
    slopes = [torch.autograd.grad(r.square().sum(), g[0].learned)[0] for r, g in
              zip(results, (exact_every, every), strict=True)]
    assert slopes[1].dtype == torch.float32 and relative(slopes[1], slopes[0]) < 0.02


def test_histories_without_a_token_are_as_in_a_search() -> None:
    """Alone, among others and without a column; what others see does not change, and gradients are finite."""
    model = TigerSettings(width=16, num_layers=1, num_heads=2, head_width=8, feed_forward_width=32,
                          dropout=0.0).build(40, 0)
    targets = torch.full((9, 1, 2), 5)
    histories = torch.full((9, 3), PAD)
    histories[8] = torch.tensor([4, 5, 6])
    logits = model.token_logits(histories, targets)
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        for some in (histories, histories[:8], histories[:8, :0]):
            first = model.start(some if some.shape[1] else histories[:8]).first()[:, 0]
            torch.testing.assert_close(model.token_logits(some, targets[:len(some)])[:, 0, 0], first, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.token_logits(histories[8:], targets[8:]), logits[8:], atol=1e-5, rtol=0)


def cost(tokens: list[int], ends: tuple[int, ...]) -> float:
    edges = (0, *ends, len(tokens))
    most = [max(tokens[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    return sum(PART + (b - a) * m * (1 + m / LONG) for a, b, m in zip(edges, edges[1:], most, strict=False))


@pytest.mark.parametrize("seed", range(4))
def test_cuts_cost_least(seed: int) -> None:
    """Among all ways to cut at multiples of `ROWS`."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 90, (5 * ROWS + 3,), generator=random)
    tokens = tokens.sort().values if seed % 2 else tokens
    parts = like_length(tokens)
    every = list(range(ROWS, len(tokens), ROWS))
    least = min(cost(tokens.tolist(), ends) for n in range(len(every) + 1) for ends in combinations(every, n))
    assert cost(tokens.tolist(), tuple(users.start for users, _ in parts[1:])) == pytest.approx(least)
    assert [users.start for users, _ in parts[1:]] == [users.stop for users, _ in parts[:-1]]
    assert all(longest == int(tokens[users].max()) for users, longest in parts)


def test_cuts_by_hand() -> None:
    assert like_length(torch.tensor([4] * 8 + [80] * 8)) == [(slice(0, 8), 4), (slice(8, 16), 80)]
    assert like_length(torch.tensor([7] * 16)) == [(slice(0, 16), 7)], "nothing is gained"
    assert like_length(torch.tensor([3])) == [(slice(0, 1), 3)]


def network_and_batch(name: str):
    """A small network with dropout off, histories of many lengths, and four tokens of a target each."""
    settings = (TigerSettings if name == "tiger" else LlamaSettings)(
        width=32, num_layers=2, num_heads=2, head_width=16, feed_forward_width=64, **(
            {"dropout": 0.0} if name == "tiger" else {}))
    model, random = settings.build(40, 0), torch.Generator().manual_seed(5)
    histories = torch.randint(2, 40, (24, 80), generator=random)
    lengths = torch.randint(1, 81, (24,), generator=random).sort().values
    histories = histories.masked_fill(torch.arange(80) >= lengths[:, None], PAD)
    return model, histories, torch.randint(2, 40, (24, 1, 4), generator=random)


def loss_and_gradients(name: str, precision: str) -> tuple[float, dict[str, Tensor]]:
    model, histories, targets = network_and_batch(name)
    with autocast("cpu", precision):
        logits = model.token_logits(histories, targets)
    assert logits.dtype == torch.float32
    loss = F.cross_entropy(logits.flatten(0, 2), targets.flatten())
    loss.backward()
    return float(loss.detach()), {key: p.grad for key, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["tiger", "llama"])
def test_bfloat16_is_near_float32(name: str) -> None:
    """Logits and gradients stay float32; the loss moves by rounding, gradients keep their direction."""
    exact, gradients = loss_and_gradients(name, "float32")
    near, rounded = loss_and_gradients(name, "bfloat16")
    assert near != exact and near == pytest.approx(exact, rel=5e-3)
    for key, gradient in gradients.items():
        assert rounded[key].dtype == torch.float32, key
        assert F.cosine_similarity(rounded[key].flatten(), gradient.flatten(), dim=0) > 0.98, key


def test_a_row_does_not_depend_on_how_its_batch_is_cut() -> None:
    """Alone, or among longer and shorter ones."""
    model, histories, targets = network_and_batch("tiger")
    with torch.no_grad():
        together = model.eval().token_logits(histories, targets)
        alone = torch.cat([model.token_logits(histories[i:i + 1], targets[i:i + 1]) for i in range(24)])
    assert len(like_length((histories != PAD).sum(1))) > 1
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_torchs_attention_keeps_float32_under_autocast() -> None:
    torch.manual_seed(3)
    query, key, value = (torch.randn(2, 2, 5, 8) for _ in range(3))
    exact = scaled_attention(query, key, value, None)
    with autocast("cpu", "bfloat16"):
        result = scaled_attention(query, key, value, None)
    assert torch.equal(result, exact.bfloat16())


@pytest.mark.parametrize("name", ["tiger", "llama"])
def test_a_search_in_float64_is_what_training_computes(name: str) -> None:
    """Masks are made in float32 and have to follow the network: torch reads others wrongly and does not say so."""
    model, histories, targets = network_and_batch(name)
    model = model.double().eval()
    with torch.no_grad():
        first = model.start(histories).first()[:, 0]
        torch.testing.assert_close(first, model.token_logits(histories, targets)[:, 0, 0], atol=1e-5, rtol=0)
