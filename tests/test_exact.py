"""Exact search against plain Python over all semantic IDs, against wide beams and against the method card."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec_bench.backbones.base import PrefixState
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.contracts import PAD
from genrec_bench.core.errors import UserError
from genrec_bench.search import exact
from genrec_bench.search import prefix_scores as module
from genrec_bench.search.beam import beam_search
from genrec_bench.search.exact import exact_ranks, exact_top_k
from genrec_bench.search.prefix_scores import PrefixScores
from genrec_bench.trie import Trie
from tests.card import ITEMS, ROWS, VOCAB
from tests.tables import (
    LEVELS,
    Prefix,
    Table,
    histories,
    place,
    prefix_scores,
    prefixes,
    ragged_codes,
    random_table,
    whole_table,
    with_eos,
)

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

CARD = np.array(ITEMS) + 1  # its tokens count from 0, ours from 1, because 0 is PAD
CARD_ORDER = {"flat": [2, 4, 1, 3, 5, 0], "trie": [2, 5, 3, 4, 1, 0]}


def card_table() -> Table:
    unread = (math.nan,) * VOCAB  # would spoil every score it came near
    return Table(lambda user, prefix: [-math.inf, *ROWS.get(tuple(t - 1 for t in prefix), unread)])


def order(scores: dict[Prefix, float], codes: np.ndarray) -> list[int]:
    """Numbers of the IDs that are possible, best first, ties by number."""
    ids = prefixes(codes, codes.shape[1])
    possible = [number for number, semantic_id in enumerate(ids) if scores[semantic_id] > -math.inf]
    return sorted(possible, key=lambda number: (-round(scores[ids[number]], 9), number))


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 6, 50])
def test_the_cards_full_ranking(normaliser: str, k: int) -> None:
    beams = exact_top_k(card_table(), histories(1), Trie.from_codes(CARD), k=k, normaliser=normaliser)
    assert beams.ids[0].tolist() == CARD_ORDER[normaliser][:k] and beams.scores.dtype == torch.float64
    assert beams.codes[0].tolist() == [list(CARD[n]) for n in CARD_ORDER[normaliser][:k]]
    assert float(beams.scores[0, 0]) == pytest.approx({"flat": -2.5889741108, "trie": -0.9839765363}[normaliser])


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("cap", [None, 1, 3, 6, 7])
def test_the_cards_places(normaliser: str, cap: int | None) -> None:
    ranks = exact_ranks(card_table(), histories(6), Trie.from_codes(CARD), torch.tensor(CARD), normaliser=normaliser,
                        cap=cap)
    places = [1 + CARD_ORDER[normaliser].index(n) for n in range(6)]
    assert ranks.tolist() == [p if cap is None or p <= cap else 0 for p in places] and ranks.dtype == torch.int64


def test_an_exact_search_finds_what_a_beam_of_the_same_width_loses() -> None:
    trie = Trie.from_codes(CARD)
    assert beam_search(card_table(), histories(1), trie, num_beams=2).ids[0].tolist() == [2, 3]
    assert exact_top_k(card_table(), histories(1), trie, k=2).ids[0].tolist() == [2, 4]


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("impossible", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_random_tries(seed: int, impossible: float, normaliser: str) -> None:
    codes, users = ragged_codes(seed), 4
    trie, table = Trie.from_codes(codes), random_table(seed, spread=1.0 + seed, impossible=impossible)
    truth = [prefix_scores(table, 2 + user, codes, normaliser) for user in range(users)]
    ids = prefixes(codes, trie.depth)
    for k in (1, 3, 10, 60):
        beams = exact_top_k(table, histories(users), trie, k=k, normaliser=normaliser)
        width = min(k, trie.num_ids)
        assert beams.codes.shape == (users, width, trie.depth) and beams.ids.shape == (users, width)
        for user, scores in enumerate(truth):
            numbers = order(scores, codes)[:k]
            unused = width - len(numbers)
            assert beams.ids[user].tolist() == numbers + [-1] * unused
            assert beams.scores[user].tolist() == pytest.approx([scores[ids[n]] for n in numbers]
                                                                + [-math.inf] * unused, abs=1e-9)
            assert beams.codes[user].tolist() == [list(ids[n]) for n in numbers] + [[PAD] * trie.depth] * unused
            for m, (kept, known) in enumerate(zip(beams.trace, beams.trace_scores, strict=True), start=1):
                assert kept[user].tolist() == [list(ids[n][:m]) for n in numbers] + [[PAD] * m] * unused
                assert known[user].tolist()[:len(numbers)] == pytest.approx([scores[ids[n][:m]] for n in numbers])
    targets = codes[np.random.default_rng(seed).integers(0, len(codes), users)]
    places = [place(scores, tuple(target)) for scores, target in zip(truth, targets.tolist(), strict=True)]
    for cap in (None, 1, 5, 100):
        ranks = exact_ranks(table, histories(users), trie, torch.tensor(targets), normaliser=normaliser, cap=cap)
        assert ranks.tolist() == [p if cap is None or p <= cap else 0 for p in places]


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("seed", range(4))
def test_eos_counts_in_the_scores_of_ids_of_any_length(seed: int, normaliser: str) -> None:
    """Exact lists and ranks, and a beam that keeps everything, against sums with EOS behind each ID."""
    codes, users = ragged_codes(seed), 3
    trie, table = Trie.from_codes(codes), random_table(seed, spread=1.5, impossible=0.1)
    wide = beam_search(table, histories(users), trie, num_beams=60, normaliser=normaliser, eos=True)
    for user in range(users):
        scores = prefix_scores(table, 2 + user, with_eos(codes), normaliser)
        numbers = order(scores, with_eos(codes))
        expected = [scores[i] for i in (prefixes(with_eos(codes), LEVELS + 1)[n] for n in numbers)]
        for k in (1, 4, 60):
            beams = exact_top_k(table, histories(users), trie, k=k, normaliser=normaliser, eos=True)
            used = int((beams.ids[user] >= 0).sum())
            assert beams.ids[user, :used].tolist() == numbers[:k]
            assert beams.scores[user, :used].tolist() == pytest.approx(expected[:k])
            assert torch.equal(beams.codes[user, :used], torch.from_numpy(trie.codes[numbers[:k]]))
        found = wide.ids[user][wide.ids[user] >= 0].tolist()
        assert sorted(found) == sorted(numbers) and wide.scores[user, :len(found)].tolist() == pytest.approx(expected)
        assert wide.codes.shape[2] == LEVELS == len(wide.trace) == len(wide.trace_scores)
        everybody = torch.from_numpy(trie.codes)
        ranks = exact_ranks(table, torch.full((len(everybody), 1), 2 + user), trie, everybody, normaliser=normaliser,
                            eos=True)
        assert ranks.tolist() == [place(scores, i) for i in prefixes(with_eos(codes), LEVELS + 1)]


@pytest.mark.parametrize("seed", range(5))
def test_exact_ties_go_by_number_and_ranks_count_what_is_greater(seed: int) -> None:
    codes = ragged_codes(seed)
    trie, table, ids = Trie.from_codes(codes), whole_table(seed), prefixes(codes, 3)
    scores = prefix_scores(table, 2, codes, "flat")
    assert len({scores[i] for i in ids}) < 0.7 * len(ids) and all(scores[i] == int(scores[i]) for i in ids)
    for k in (1, 2, 7, 12, 60):
        assert exact_top_k(table, histories(1), trie, k=k).ids[0].tolist() == order(scores, codes)[:k]
    everybody = torch.tensor(ids)
    same_user = torch.full((len(ids), 1), 2)
    assert exact_ranks(table, same_user, trie, everybody).tolist() == [place(scores, i) for i in ids]
    assert exact_ranks(table, same_user, trie, everybody, cap=4).tolist() == [
        place(scores, i) if place(scores, i) <= 4 else 0 for i in ids]


def test_constant_logits_rank_by_the_ways_to_go_on() -> None:
    """Over the valid children an ID has probability 1 / (product of its siblings): 1/2, 1/4, 1/4 here; over the whole
    vocabulary of 8 all have 1/64, and go by number."""
    trie = Trie.from_codes(np.array([[3, 5], [2, 4], [2, 5]]))
    table = Table(lambda user, prefix: [0.0] * 8)
    assert exact_top_k(table, histories(1), trie, k=2, normaliser="trie").ids.tolist() == [[2, 0]]
    assert exact_top_k(table, histories(1), trie, k=2).ids.tolist() == [[0, 1]]
    targets = torch.tensor([[2, 4], [2, 5], [3, 5]])
    assert exact_ranks(table, histories(3), trie, targets, normaliser="trie").tolist() == [2, 2, 1]
    assert exact_ranks(table, histories(3), trie, targets).tolist() == [1, 1, 1]


def test_a_trie_of_one_level_asks_the_network_once() -> None:
    trie = Trie.from_codes(np.array([[4], [2], [3], [2]]))
    table = Table(lambda user, prefix: [0.0, 0.0, 1.0, 3.0, 2.0])
    assert exact_top_k(table, histories(2), trie, k=2).ids.tolist() == [[1, 2]] * 2
    assert exact_ranks(table, histories(2), trie, torch.tensor([[2], [4]])).tolist() == [3, 2]
    assert set(table.known) == {(2, ()), (3, ())}


def test_temperature_changes_scores_as_in_a_beam() -> None:
    codes = ragged_codes(3)
    trie, table = Trie.from_codes(codes), random_table(3, spread=3.0)
    wide = beam_search(table, histories(3), trie, num_beams=60, temperature=0.5)
    beams = exact_top_k(table, histories(3), trie, k=9, temperature=0.5)
    assert torch.equal(beams.ids, wide.ids[:, :9]) and torch.equal(beams.scores, wide.scores[:, :9])
    ranks = exact_ranks(table, histories(3), trie, wide.codes[:, 4], temperature=0.5)
    assert ranks.tolist() == [5, 5, 5]


class Watched(PrefixScores):
    """Keeps what was read, as (row of the batch, node)."""

    made: list[Watched] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.read: list[tuple[int, int]] = []
        Watched.made.append(self)
        super().__init__(*args, **kwargs)

    def _write(self, nodes: Tensor, wanted: Tensor, *rest: Any) -> None:
        self.read += [(user, node) for user, row, uses in zip(self.users.tolist(), nodes.tolist(), wanted.tolist(),
                                                              strict=True) for node, use in zip(row, uses, strict=True)
                      if use]
        super()._write(nodes, wanted, *rest)


def node_prefixes(trie: Trie) -> list[Prefix]:
    """The prefix of every node."""
    found: list[Prefix] = [()]
    for node in range(1, len(trie.token)):
        found.append((*found[trie.parent[node]], int(trie.token[node])))
    return found


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    monkeypatch.setattr(exact, "PrefixScores", Watched)
    monkeypatch.setattr(Watched, "made", [])
    return Watched.made


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_only_the_beam_and_what_any_exact_search_needs_is_read(seed: int, k: int, watched: list[Watched]) -> None:
    """With one open prefix a round, read best first, no prefix below the k-th best score is read but by the beam."""
    codes, users = ragged_codes(seed), 3
    trie, table = Trie.from_codes(codes), random_table(seed, spread=2.0)
    names = node_prefixes(trie)
    exact_top_k(table, histories(users), trie, k=k)
    read = watched[0].read
    assert len(read) == len(set(read)) == int(watched[0].reads.sum())
    for user in range(users):
        scores = prefix_scores(table, 2 + user, codes, "flat")
        last = sorted((scores[i] for i in prefixes(codes, 3)), reverse=True)[k - 1]
        goes_on = {p[:-1] for p in scores if p and p[-1] != PAD}
        needed = {p for p in goes_on if scores[p] >= last}
        level, beam = {()}, {()}
        for length in (1, 2):  # an ID that has ended is known with its last token
            level = set(sorted((p for p in scores if len(p) == length and (p[:-1] in level or p[-1] == PAD)),
                               key=lambda p: -scores[p])[:k])
            beam |= level & goes_on
        mine = {names[node] for who, node in read if who == user}
        assert needed <= mine <= goes_on
        if k == 1:
            assert beam <= mine


def test_users_who_are_done_leave_and_nothing_changes(watched: list[Watched], monkeypatch: pytest.MonkeyPatch) -> None:
    """User 4 has nearly equal logits, by which every prefix is above every ID; the others are sure of one ID."""
    monkeypatch.setattr(exact, "OPEN_COLUMNS", 2)
    codes = np.random.default_rng(1).integers(0, 5, size=(40, 3)) + [2, 7, 12]
    trie, noise = Trie.from_codes(codes), random_table(5, spread=0.1)
    table = Table(lambda user, prefix: [30.0 * (t in codes[0]) + z for t, z in enumerate(noise.logits(user, prefix))]
                  if user != 4 else noise.logits(user, prefix))
    users = torch.tensor([[2], [3], [4], [5], [6]])
    sizes = []
    select = PrefixState.select
    monkeypatch.setattr(PrefixState, "select", lambda self, rows: sizes.append(len(rows)) or select(self, rows))
    together = exact_top_k(table, users, trie, k=1)
    batch = watched[0]
    assert sizes == [1] and batch.reads.tolist() == [3, 3, 1 + sum(trie.num_prefixes[:2]), 3, 3]
    for row, user in enumerate(users):
        alone = exact_top_k(table, user[None], trie, k=1)
        assert torch.equal(alone.ids[0], together.ids[row]) and torch.equal(alone.scores[0], together.scores[row])
        assert int(watched[-1].reads) == int(batch.reads[row])


def test_a_cap_saves_reading(watched: list[Watched]) -> None:
    codes = ragged_codes(2)
    trie, table = Trie.from_codes(codes), random_table(2)
    worst = exact_top_k(table, histories(3), trie, k=60).codes[:, -1]
    assert exact_ranks(table, histories(3), trie, worst).tolist() == [trie.num_ids] * 3
    assert exact_ranks(table, histories(3), trie, worst, cap=1).tolist() == [0] * 3
    assert (watched[-1].reads < watched[-2].reads).all()


@pytest.mark.parametrize("columns", [1, 3])
def test_wide_steps_are_cut_without_a_trace(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = ragged_codes(4)
    trie, table = Trie.from_codes(codes), random_table(4)
    whole = exact_top_k(table, histories(3), trie, k=20)
    monkeypatch.setattr(module, "MAX_COLUMNS", columns)
    parts = exact_top_k(table, histories(3), trie, k=20)
    assert torch.equal(whole.ids, parts.ids) and torch.equal(whole.scores, parts.scores)


@pytest.mark.parametrize("seed", range(3))
def test_a_table_knows_the_children_of_what_was_wanted_and_no_more(seed: int) -> None:
    """Repeated, expanded and unwanted columns cost nothing; both normalisers come from one reading."""
    codes = ragged_codes(seed)
    trie, table = Trie.from_codes(codes), random_table(seed, spread=2.0)
    names = node_prefixes(trie)
    seen: list[Tensor] = []
    known = PrefixScores(table, histories(2), trie, ("flat", "trie"), seen=lambda nodes, logits: seen.append(nodes))
    first = [n for n in range(1, 1 + trie.num_prefixes[0]) if trie.children(names[n]).size][:2]
    nodes = torch.tensor([[first[0], first[1], first[0], 0, first[1]], [first[1], 0, first[0], first[1], first[1]]])
    wanted = torch.tensor([[True, False, True, True, False], [True, True, False, True, False]])
    assert known.expand(nodes, wanted) == [0, 1] and known.expand(nodes, wanted) == []
    assert known.reads.tolist() == [2, 2] and [s.tolist() for s in seen] == [[[0], [0]], [[first[0]], [first[1]]]]
    for name, scores in known.scores.items():
        for user in range(2):
            truth = prefix_scores(table, 2 + user, codes, name)
            reached = [True]
            for node in range(1, len(names)):
                above = int(trie.parent[node])
                alone = trie.token[node] == PAD and trie.child_start[above] + 1 == trie.child_start[above + 1]
                reached.append(above in (0, first[user]) or alone and reached[above])
            assert [s > -math.inf for s in scores[user].tolist()] == reached
            assert scores[user][torch.tensor(reached)].tolist() == pytest.approx(
                [truth[p] for p, yes in zip(names, reached, strict=True) if yes], abs=1e-9)


def tiny(kind: str) -> Any:
    sizes = {"width": 16, "num_layers": 2, "num_heads": 2, "head_width": 8, "feed_forward_width": 32}
    settings = TigerSettings(**sizes, dropout=0.0) if kind == "tiger" else LlamaSettings(**sizes)
    model = settings.build(17, 3).eval()
    with torch.no_grad():
        (model.shared if kind == "tiger" else model.model.embed_tokens).weight.mul_(2.0 if kind == "tiger" else 40.0)
    return model


def padded_histories(users: int = 5) -> Tensor:
    random = np.random.default_rng(1)
    rows = [random.integers(2, 17, size=3 * (1 + n)).tolist() + [1] for n in range(users)]
    return torch.tensor([row + [PAD] * (3 * users + 1 - len(row)) for row in rows])


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("kind", ["tiger", "llama"])
def test_networks_agree_with_a_beam_over_everything(kind: str, normaliser: str,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "OPEN_COLUMNS", 3)  # several rounds of mixed lengths
    model, trie = tiny(kind), Trie.from_codes(np.random.default_rng(5).integers(0, 5, size=(40, 3)) + [2, 7, 12])
    wide = beam_search(model, padded_histories(), trie, num_beams=60, normaliser=normaliser)
    beams = exact_top_k(model, padded_histories(), trie, k=4, normaliser=normaliser)
    assert torch.equal(beams.ids, wide.ids[:, :4]) and not beams.scores.requires_grad
    torch.testing.assert_close(beams.scores, wide.scores[:, :4], atol=1e-5, rtol=0)
    for at in (0, 3, 11):
        gaps = (wide.scores[:, at:at + 1] - wide.scores).abs()
        assert (gaps > 1e-5).sum() == gaps.numel() - len(gaps), "the example has a near tie"
        ranks = exact_ranks(model, padded_histories(), trie, wide.codes[:, at], normaliser=normaliser)
        assert ranks.tolist() == [at + 1] * 5


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_logits_that_are_nan_are_refused_by_row(value: float, level: int) -> None:
    clean, codes = random_table(0), ragged_codes(5)
    trie = Trie.from_codes(codes)
    table = Table(lambda user, prefix: [value] * 17 if user == 3 and len(prefix) == level
                  else clean.logits(user, prefix))
    with pytest.raises(ValueError, match="user row 1 are NaN"):
        exact_top_k(table, histories(3), trie, k=50)
    with pytest.raises(ValueError, match="user row 1 are NaN"):
        exact_ranks(table, histories(3), trie, torch.tensor(codes[:1]).expand(3, -1))


def test_what_cannot_be_asked_is_refused() -> None:
    trie, table, targets = Trie.from_codes(CARD), card_table(), torch.tensor(CARD[:2])
    with pytest.raises(UserError, match="unknown normaliser 'tire'.*'trie'"):
        exact_top_k(table, histories(1), trie, k=2, normaliser="tire")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        exact_top_k(table, histories(1), trie, k=0)
    with pytest.raises(ValueError, match="cap must be at least 1, got 0"):
        exact_ranks(table, histories(2), trie, targets, cap=0)
    with pytest.raises(ValueError, match="targets must have 3 tokens a row"):
        exact_ranks(table, histories(2), trie, targets[:, :2])
    for wrong in ([1, 5, 8], [9, 4, 7], [1, 4, PAD]):
        with pytest.raises(ValueError, match="row 1 of targets"):
            exact_ranks(table, histories(2), trie, torch.tensor([CARD[0].tolist(), wrong]))


class RowsOfTheBatch:
    """Knows its users by their row in the batch alone, and no prefix but those of the trie."""

    def __init__(self, table: Table, users: Tensor, codes: np.ndarray) -> None:
        self.table, self.users = table, users[:, 0].tolist()
        self.known = {tuple(row[:length]) for row in codes.tolist() for length in range(codes.shape[1])}

    def token_logits(self, histories: Tensor, candidates: Tensor) -> Tensor:
        if len(candidates) != len(self.users) or candidates.shape[2] > LEVELS:
            raise KeyError(candidates.shape)
        unknown = {tuple(c[:t]) for user in candidates.tolist() for c in user for t in range(len(c))} - self.known
        if unknown:
            raise KeyError(sorted(unknown))
        return self.table.token_logits(torch.tensor(self.users)[:, None], candidates)


@pytest.mark.parametrize("seed", range(4))
def test_the_fallback_asks_for_the_whole_batch_and_for_prefixes_of_the_trie_alone(seed: int) -> None:
    codes, table, users = ragged_codes(seed), random_table(seed), histories(6)
    trie, strict = Trie.from_codes(codes), RowsOfTheBatch(random_table(seed), users, codes)
    for normaliser in ("flat", "trie"):
        found = exact_top_k(strict, users, trie, k=4, normaliser=normaliser)
        assert torch.equal(found.ids, exact_top_k(table, users, trie, k=4, normaliser=normaliser).ids)
        targets = torch.from_numpy(codes[:6])
        assert torch.equal(exact_ranks(strict, users, trie, targets, normaliser=normaliser),
                           exact_ranks(table, users, trie, targets, normaliser=normaliser))
        beams = beam_search(strict, users, trie, num_beams=3, normaliser=normaliser)
        assert torch.equal(beams.ids, beam_search(table, users, trie, num_beams=3, normaliser=normaliser).ids)
