"""Beam search against the method card's numbers, exhaustive ranking and a naive beam search."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.errors import UserError
from genrec_bench.search.beam import Beams, beam_search
from genrec_bench.trie import Trie
from tests.tables import ragged_codes

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

# The method card's fixture; its tokens count from 0, ours from 1, because 0 is PAD.
ITEMS = {"i0": (0, 3, 6), "i1": (0, 3, 7), "i2": (0, 4, 6), "i3": (1, 3, 6), "i4": (1, 5, 8), "i5": (2, 4, 7)}
LOGITS = {
    (): "1.0 0.5 0.2 -1.0 -1.2 -0.8 -2.0 -1.5 -1.0",
    (0,): "-1.0 -0.5 -1.5 0.2 1.4 -0.3 -0.6 -1.1 -0.9",
    (1,): "-0.7 -1.3 -0.4 0.9 -0.2 0.6 -1.0 -0.8 -1.6",
    (2,): "-1.1 -0.9 -0.2 0.3 0.8 0.1 -1.4 -0.5 -0.7",
    (0, 3): "-0.9 -1.4 -0.6 -1.0 -0.3 -1.2 0.7 1.1 0.4",
    (0, 4): "-1.2 -0.1 -0.8 -0.5 -1.6 -0.7 1.3 0.2 -0.4",
    (1, 3): "-0.3 -0.6 -1.7 -0.2 -1.0 -0.9 0.5 0.8 -0.1",
    (1, 5): "-1.5 -0.4 -0.2 -0.8 -0.6 -1.1 0.1 -0.7 1.0",
    (2, 4): "-0.5 -1.0 -1.3 -0.9 -0.4 -0.6 0.6 0.9 0.0",
}
SCORES = {
    "flat": {"i2": -2.5889741108, "i4": -3.9251871763, "i1": -4.0570410529, "i3": -4.1885128728,
             "i5": -4.2311315862, "i0": -4.4570410529},
    "trie": {"i2": -0.9839765363, "i5": -1.5206940689, "i3": -1.7750493134, "i4": -2.0750493134,
             "i1": -2.6969917887, "i0": -3.0969917887},
}
CARD = Trie.from_codes(np.array(list(ITEMS.values())) + 1)


class Table:
    """A backbone that is nothing but logits per (user, prefix), float64; user = first token of the history."""

    def __init__(self, row: Callable[[int, tuple[int, ...]], Tensor]) -> None:
        self.row = row

    def token_logits(self, histories: Tensor, candidates: Tensor) -> Tensor:
        return torch.stack([torch.stack([torch.stack([self.row(int(history[0]), tuple(codes[:t].tolist()))
                                                      for t in range(len(codes))]) for codes in user])
                            for history, user in zip(histories, candidates, strict=True)])


def card_row(user: int, prefix: tuple[int, ...]) -> Tensor:
    text = LOGITS[tuple(t - 1 for t in prefix)]
    return torch.tensor([-math.inf, *map(float, text.split())], dtype=torch.float64)


def random_table(seed: int, vocab: int, integer: bool) -> Table:
    """Fixed random logits for any prefix; small integers make heavy ties."""

    def row(user: int, prefix: tuple[int, ...]) -> Tensor:
        random = np.random.default_rng([seed, user, *prefix])
        values = random.integers(0, 2, vocab) if integer else random.normal(size=vocab)
        return torch.tensor(values, dtype=torch.float64)

    return Table(row)


def distinct(codes: np.ndarray) -> list[tuple[int, ...]]:
    return sorted({tuple(int(t) for t in row if t != PAD) for row in codes})


def step_logp(table: Table, user: int, prefix: tuple[int, ...], token: int, allowed: list[int],
              normaliser: str) -> float:
    """Plain Python: log-probability of one token after a prefix."""
    row = table.row(user, prefix).tolist()
    over = row if normaliser == "flat" else [row[t] for t in allowed]
    return row[token] - math.log(sum(math.exp(z) for z in over))


def allowed_after(ids: list[tuple[int, ...]], prefix: tuple[int, ...]) -> list[int]:
    return sorted({y[len(prefix)] for y in ids if len(y) > len(prefix) and y[:len(prefix)] == prefix})


def exhaustive(table: Table, user: int, ids: list[tuple[int, ...]], normaliser: str) -> dict[tuple[int, ...], float]:
    return {y: sum(step_logp(table, user, y[:t], y[t], allowed_after(ids, y[:t]), normaliser) for t in range(len(y)))
            for y in ids}


def naive_beam(table: Table, user: int, ids: list[tuple[int, ...]], depth: int, width: int,
               normaliser: str) -> list[list[tuple[tuple[int, ...], float]]]:
    """Beams after each level, as (prefix, score); a finished ID stays at its score. Ties: parent, then token.

    Scores are rounded for comparing, so that sums that are equal on paper are equal here.
    """
    beams: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    levels = []
    for level in range(depth):
        grown: list[tuple[tuple[int, ...], float]] = []
        for prefix, score in beams:
            if prefix in ids and len(prefix) <= level:
                grown.append((prefix, score))  # PAD is 0, so the finished ID comes before its longer children
            if len(prefix) == level:
                allowed = allowed_after(ids, prefix)
                grown += [((*prefix, t), score + step_logp(table, user, prefix, t, allowed, normaliser))
                          for t in allowed]
        beams = sorted(grown, key=lambda pair: -round(pair[1], 9))[:width]
        levels.append(beams)
    return levels


def histories(users: int) -> Tensor:
    return torch.arange(2, 2 + users)[:, None]


def without_pad(row: Tensor) -> tuple[int, ...]:
    return tuple(int(t) for t in row if t != PAD)


def found(beams: Beams, user: int) -> list[tuple[int, ...]]:
    """The used rows of one user's list."""
    return [without_pad(row) for row, score in zip(beams.codes[user], beams.scores[user], strict=True)
            if score > -math.inf]


def check_shapes(beams: Beams, trie: Trie, users: int, width: int) -> None:
    """Contract 7: trace, PAD and -inf in unused rows, distinct valid IDs, scores that fall."""
    columns = beams.codes.shape[1]
    assert beams.codes.shape == (users, columns, trie.depth) and beams.scores.shape == (users, columns)
    assert columns <= width and columns <= trie.num_ids and len(beams.trace) == trie.depth
    for level, kept in enumerate(beams.trace):
        assert kept.shape[0] == users and kept.shape[1] <= width and kept.shape[2] == level + 1
    assert torch.equal(beams.trace[-1], beams.codes)
    unused = beams.scores.isneginf()
    assert (beams.codes[unused] == PAD).all() and (beams.ids[unused] == -1).all()
    assert (beams.scores[:, :-1] >= beams.scores[:, 1:]).all()
    for user in range(users):
        used = found(beams, user)
        assert len(set(used)) == len(used) and all(len(trie.items(y)) for y in used)
        numbers = beams.ids[user][~unused[user]].tolist()
        assert all(trie.id_of_item[item] == number for y, number in zip(used, numbers, strict=True)
                   for item in trie.items(y) if item in ends(trie, y))


def ends(trie: Trie, semantic_id: tuple[int, ...]) -> set[int]:
    """Rows whose ID is exactly this one."""
    longer = {i for t in trie.children(semantic_id) for i in trie.items((*semantic_id, int(t))).tolist()}
    return set(trie.items(semantic_id).tolist()) - longer


@pytest.mark.parametrize(("width", "steps"), [
    (2, [{(0,), (1,)}, {(0, 4), (1, 3)}, {ITEMS["i2"], ITEMS["i3"]}]),
    (3, [{(0,), (1,), (2,)}, {(0, 4), (1, 3), (1, 5)}, {ITEMS["i2"], ITEMS["i4"], ITEMS["i3"]}]),
])
def test_the_card_step_by_step(width: int, steps: list[set[tuple[int, ...]]]) -> None:
    beams = beam_search(Table(card_row), histories(1), CARD, num_beams=width)
    assert [{tuple(t - 1 for t in row) for row in kept[0].tolist()} for kept in beams.trace] == steps


def test_the_cards_lists_in_order() -> None:
    for width, names in ((1, ["i2"]), (2, ["i2", "i3"]), (3, ["i2", "i4", "i3"])):
        beams = beam_search(Table(card_row), histories(1), CARD, num_beams=width)
        assert found(beams, 0) == [tuple(t + 1 for t in ITEMS[name]) for name in names]
        assert beams.scores[0].tolist() == pytest.approx([SCORES["flat"][n] for n in names], abs=1e-9)


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("width", [6, 7, 50])
def test_a_wide_beam_is_the_cards_full_ranking(normaliser: str, width: int) -> None:
    beams = beam_search(Table(card_row), histories(1), CARD, num_beams=width, normaliser=normaliser)
    assert found(beams, 0) == [tuple(t + 1 for t in ITEMS[name]) for name in SCORES[normaliser]]
    assert beams.scores.dtype == torch.float64
    assert beams.scores[0, :6].tolist() == pytest.approx(list(SCORES[normaliser].values()), abs=1e-9)
    assert beams.ids[0, :6].tolist() == [int(name[1]) for name in SCORES[normaliser]]
    total = beams.scores[0, :6].exp().sum()
    assert float(total) == pytest.approx({"flat": 0.1534370025, "trie": 1.0}[normaliser], abs=1e-9)


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_equals_exhaustive_ranking(seed: int, normaliser: str) -> None:
    codes = ragged_codes(seed)
    trie, ids, table = Trie.from_codes(codes), distinct(codes), random_table(seed, 17, integer=False)
    beams = beam_search(table, histories(3), trie, num_beams=100, normaliser=normaliser)
    check_shapes(beams, trie, 3, 100)
    for user in range(3):
        truth = exhaustive(table, user + 2, ids, normaliser)
        assert set(found(beams, user)) == set(ids)
        assert sorted(truth.values(), reverse=True) == pytest.approx(beams.scores[user].tolist(), abs=1e-9)
        for semantic_id, score in zip(found(beams, user), beams.scores[user].tolist(), strict=True):
            assert truth[semantic_id] == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_beam_equals_a_naive_one(seed: int, width: int, normaliser: str) -> None:
    codes = ragged_codes(seed + 20)
    trie, ids, table = Trie.from_codes(codes), distinct(codes), random_table(seed, 17, integer=False)
    beams = beam_search(table, histories(2), trie, num_beams=width, normaliser=normaliser)
    check_shapes(beams, trie, 2, width)
    for user in range(2):
        levels = naive_beam(table, user + 2, ids, 3, width, normaliser)
        for kept, expected in zip(beams.trace, levels, strict=True):
            assert [without_pad(row) for row in kept[user] if row.any()] == [prefix for prefix, _ in expected]
        assert beams.scores[user, :len(levels[-1])].tolist() == pytest.approx([s for _, s in levels[-1]], abs=1e-9)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 12, 100])
@pytest.mark.parametrize("seed", range(3))
def test_ties_keep_the_order_of_parents_and_then_of_tokens(seed: int, width: int) -> None:
    """Every logit is one constant, so that all children of any prefix tie exactly at every level."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 4, size=(30, 3)) + 2 + 4 * np.arange(3)
    trie, ids, table = Trie.from_codes(codes), distinct(codes), Table(lambda user, prefix: torch.zeros(14).double())
    beams = beam_search(table, histories(1), trie, num_beams=width)
    check_shapes(beams, trie, 1, width)
    assert found(beams, 0) == ids[:width]
    assert found(beams, 0) == [p for p, _ in naive_beam(table, 2, ids, 3, width, "flat")[-1]]


class Levels:
    """Three logits, 0, 1 and 2, so that totals tie a lot. Token 1, which no item has, is at 64: the normaliser of
    every row is exactly 64 in float64, and all sums are exact whole numbers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def token_logits(self, histories: Tensor, candidates: Tensor) -> Tensor:
        users, count, depth = candidates.shape
        tokens = torch.arange(14)
        before = torch.nn.functional.pad(candidates, (1, -1)).cumsum(2)[..., None]
        logits = ((before * 5 + tokens * 3 + self.seed) % 14 // 5).double()
        return torch.where(tokens == 1, 64.0, logits).expand(users, count, depth, 14)


@pytest.mark.parametrize("width", [1, 2, 4, 6, 9, 40])
@pytest.mark.parametrize("seed", range(4))
def test_heavy_ties_with_integer_logits(seed: int, width: int) -> None:
    """Totals tie across parents, and the tie goes to the better-placed parent."""
    codes = np.random.default_rng(seed).integers(0, 4, size=(40, 3)) + 2 + 4 * np.arange(3)
    trie, ids, backbone = Trie.from_codes(codes), distinct(codes), Levels(seed)
    table = Table(lambda user, prefix: backbone.token_logits(
        torch.zeros(1, 1), torch.tensor([[[*prefix, 0]]]))[0, 0, -1])
    beams = beam_search(backbone, histories(1), trie, num_beams=width)
    levels = naive_beam(table, 2, ids, 3, width, "flat")
    assert len({score for _, score in levels[-1]}) <= 7 and all(score == int(score) for _, score in levels[-1])
    for kept, expected in zip(beams.trace, levels, strict=True):
        assert [without_pad(row) for row in kept[0] if row.any()] == [prefix for prefix, _ in expected]


@pytest.mark.parametrize("width", [1, 4, 30])
def test_colliding_items_are_one_id(width: int) -> None:
    codes = np.array([[2, 4], [2, 4], [2, 5], [3, 4], [3, 4], [3, 4]])
    trie = Trie.from_codes(codes)
    beams = beam_search(random_table(0, 6, integer=False), histories(2), trie, num_beams=width)
    check_shapes(beams, trie, 2, width)
    assert beams.codes.shape[1] == min(width, 3)


def test_unused_rows_where_the_kept_prefixes_run_out_of_children() -> None:
    """Beam 2 keeps the IDs (2,) and (3,) of level 1, each with one way to go on; level 2 has no more than these."""
    codes = np.array([[2, 6, 0], [3, 0, 0], [4, 6, 7], [4, 6, 8], [4, 7, 9]])
    row = torch.tensor([0, 0, 9, 8, 1, 0, 0, 0, 0, 0]).double()
    beams = beam_search(Table(lambda user, prefix: row), histories(1), Trie.from_codes(codes), num_beams=2)
    check_shapes(beams, Trie.from_codes(codes), 1, 2)
    assert set(found(beams, 0)) == {(2, 6), (3,)}


def test_rows_without_an_id_are_pad_and_minus_infinity() -> None:
    """Three beams, four nodes at level 1: the three kept have one child each but one has none of its own level."""
    codes = np.array([[2, 5], [3, 5], [4, 5], [4, 6]])
    minus = torch.tensor([0, 0, 0, 0, -math.inf, 0, 0]).double()
    beams = beam_search(Table(lambda user, prefix: minus), histories(1), Trie.from_codes(codes), num_beams=4)
    check_shapes(beams, Trie.from_codes(codes), 1, 4)
    assert found(beams, 0) == [(2, 5), (3, 5)]
    assert beams.codes[0, 2:].eq(PAD).all() and beams.scores[0, 2:].isneginf().all()


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("width", [1, 3, 6])
def test_a_prefix_without_a_child_of_positive_probability_is_unused(normaliser: str, width: int) -> None:
    """Nothing may follow (2,), nor for user 3 any prefix; for user 4 there is not even a first token."""
    trie = Trie.from_codes(np.array([[2, 4], [2, 5], [3, 4]]))

    def row(user: int, prefix: tuple[int, ...]) -> Tensor:
        logits = torch.zeros(7).double()
        if user == 3 or prefix == (2,):
            logits[4:6] = -math.inf
        if user == 4:
            logits[:] = -math.inf
        return logits

    beams = beam_search(Table(row), histories(3), trie, num_beams=width, normaliser=normaliser)
    check_shapes(beams, trie, 3, width)
    assert not beams.scores.isnan().any()
    # a beam of one follows (2,), the first of two equals, into the dead end
    assert [found(beams, user) for user in range(3)] == [[] if width == 1 else [(3, 4)], [], []]


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_logits_that_are_nan_are_refused_by_row(normaliser: str, value: float, level: int) -> None:
    clean = random_table(0, 17, integer=False)
    codes = ragged_codes(5)

    def row(user: int, prefix: tuple[int, ...]) -> Tensor:
        logits = clean.row(user, prefix)
        return torch.full_like(logits, value) if user == 3 and len(prefix) == level else logits

    with pytest.raises(ValueError, match="user row 1 are NaN"):
        beam_search(Table(row), histories(3), Trie.from_codes(codes), num_beams=50, normaliser=normaliser)


def test_nan_after_an_unused_beam_is_nobodys_fault() -> None:
    """Beam 2 of level 1 is unused, since (3,) has probability 0; what the network says after it does not count."""
    trie = Trie.from_codes(np.array([[2, 4], [3, 4]]))

    def row(user: int, prefix: tuple[int, ...]) -> Tensor:
        logits = torch.zeros(6).double()
        logits[3] = -math.inf
        return logits.fill_(math.nan) if prefix and prefix != (2,) else logits

    beams = beam_search(Table(row), histories(1), trie, num_beams=2)
    assert found(beams, 0) == [(2, 4)]


@pytest.mark.parametrize("width", [0, -1])
def test_a_beam_without_width_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"num_beams must be at least 1, got {width}"):
        beam_search(Table(card_row), histories(1), CARD, num_beams=width)


def test_an_unknown_normaliser_is_named() -> None:
    with pytest.raises(UserError, match="unknown normaliser 'tire'.*'trie'"):
        beam_search(Table(card_row), histories(1), CARD, num_beams=2, normaliser="tire")


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("width", [1, 3, 8, 100])
def test_eos_re_orders_the_list_of_ids_of_one_length(width: int, normaliser: str) -> None:
    """As `generate` does: the beam is that without EOS, whose log-probability after each kept ID orders it anew."""
    codes = np.random.default_rng(width).integers(2, 6, size=(40, 3))
    trie, table, ids = Trie.from_codes(codes), random_table(width, 6, integer=False), distinct(codes)
    plain, beams = (beam_search(table, histories(3), trie, num_beams=width, normaliser=normaliser, eos=eos)
                    for eos in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain.trace, beams.trace, strict=True))
    for user in range(3):
        costs = {y: step_logp(table, 2 + user, y, EOS, [EOS], normaliser) for y in ids}
        final = sorted(((y, score + costs[y]) for y, score in zip(found(plain, user), plain.scores[user].tolist(),
                                                                  strict=True)), key=lambda pair: -pair[1])
        assert found(beams, user) == [y for y, _ in final]
        assert beams.scores[user].tolist() == pytest.approx([score for _, score in final])
    assert torch.equal(beams.ids, plain.ids) == (normaliser == "trie" or width == 1), "EOS is the only child"
