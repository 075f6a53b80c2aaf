"""Facts about beams against plain Python, against `beam_search` and against the method card's numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from genrec_bench.batches import TokenisedInstances
from genrec_bench.contracts import EOS, PAD, Instances, SemanticIds
from genrec_bench.search import diagnose
from genrec_bench.search.beam import beam_search
from genrec_bench.search.diagnose import Facts, bytes_of_a_user, diagnose_rows, diagnose_users, users_at_once
from genrec_bench.search.exact import exact_ranks, exact_top_k
from genrec_bench.search.prefix_scores import PrefixScores
from genrec_bench.trie import Trie
from tests.tables import (
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
from tests.test_exact import CARD, CARD_ORDER, Watched, card_table, padded_histories, tiny

torch.set_num_threads(1)

BOTH = ("flat", "trie")
FACTS = {"rank": 0, "prefix_rank": 1, "survived": 1, "beam_rank": 1, "retained": 2, "top_size": 0, "needed": 0}


def card_facts(**asked: Any) -> Facts:
    """The six items as targets, one user each."""
    return diagnose_users(card_table(), histories(6), Trie.from_codes(CARD), torch.tensor(CARD), **asked)


@pytest.mark.parametrize(("width", "retention", "lost"), [(2, [1, 1 / 2, 1 / 2], {2: [4]}),
                                                          (3, [1, 2 / 3, 2 / 3], {3: [1]})])
def test_the_cards_retention_and_pruning(width: int, retention: list[float], lost: dict[int, list[int]]) -> None:
    """Among targets in the exact top K = B: one falls out of the beam, i4 with two beams, i1 with three."""
    facts = card_facts(beams=[width], normalisers=["flat"], top=width)
    assert (facts["flat/retained"][:, 0] / width).mean(axis=0) == pytest.approx(retention)
    listed = (facts["flat/rank"] <= width) & (facts["flat/rank"] > 0)
    assert listed.sum() == width
    assert np.flatnonzero(listed & (facts["flat/beam_rank"][:, 0] == 0)).tolist() == lost[width]
    violated = (facts["token_rank/trie"] > width).any(axis=1)
    assert not violated[lost[width]].any()


def test_the_cards_survival() -> None:
    facts = card_facts(beams=[1, 2, 3, 6], normalisers=BOTH)
    survival = np.stack([(facts["flat/survived"] >= m).mean(axis=0) for m in (1, 2, 3)], axis=1)
    np.testing.assert_allclose(survival, [[1 / 2, 1 / 6, 1 / 6], [5 / 6, 1 / 3, 1 / 3], [1, 1 / 2, 1 / 2], [1, 1, 1]])
    for name in BOTH:
        assert facts[f"{name}/rank"].tolist() == [1 + CARD_ORDER[name].index(n) for n in range(6)]
        assert facts[f"{name}/beam_rank"][:, 3].tolist() == facts[f"{name}/rank"].tolist()
        assert facts[f"{name}/top_size"].tolist() == [6] * 6
        assert facts[f"{name}/needed"].tolist() == [9] * 6  # all: the empty prefix, 3 of one token, 5 of two
    # by hand from the card's rows: the first tokens have logits 1.0, 0.5, 0.2; after (0,) 1.4 beats 0.2
    assert facts["token_rank/flat"].tolist() == [[1, 2, 2], [1, 2, 1], [1, 1, 1], [2, 1, 2], [2, 2, 1], [3, 1, 1]]
    assert facts["token_rank/trie"].tolist() == [[1, 2, 2], [1, 2, 1], [1, 1, 1], [2, 1, 1], [2, 2, 1], [3, 1, 1]]


def naive_token_ranks(table: Table, user: int, target: Prefix, codes: np.ndarray) -> tuple[list[int], list[int]]:
    """Places of the target's tokens by logit, among the vocabulary and among valid tokens."""
    flat, trie = [], []
    for t, token in enumerate(target):
        logits = table.logits(user, target[:t])
        valid = {int(row[t]) for row in codes if tuple(row[:t]) == target[:t] and row[t] != PAD}
        flat.append(1 if token == PAD else 1 + sum(z > logits[token] for z in logits))
        trie.append(1 if token == PAD else 1 + sum(logits[v] > logits[token] for v in valid))
    return flat, trie


def check_against_python(table: Table, codes: np.ndarray, normalisers: tuple[str, ...], *, top: int, cap: int,
                         beams: tuple[int, ...], seed: int, eos: bool = False) -> None:
    """Every fact from prefix scores in plain Python and the traces of `beam_search`."""
    trie, users, searched = Trie.from_codes(codes), 3, with_eos(codes) if eos else codes
    drawn = np.random.default_rng(seed).integers(0, len(codes), users)
    targets, wholes = codes[drawn], searched[drawn]
    facts = diagnose_users(table, histories(users), trie, torch.tensor(targets), beams=beams, normalisers=normalisers,
                           top=top, cap=cap, eos=eos)
    for name in normalisers:
        traces = [beam_search(table, histories(users), trie, num_beams=b, normaliser=name, eos=eos) for b in beams]
        for user, (target, whole) in enumerate(zip(map(tuple, targets.tolist()), map(tuple, wholes.tolist()),
                                                   strict=True)):
            scores = prefix_scores(table, 2 + user, searched, name)
            got = {fact: facts[f"{name}/{fact}"][user].tolist() for fact in FACTS}
            places = [place(scores, whole[:m]) for m in range(1, len(whole) + 1)]
            assert got["prefix_rank"] == [p if p <= cap else 0 for p in places[:trie.depth]]
            assert got["rank"] == (places[-1] if places[-1] <= cap else 0)
            possible = [i for i in prefixes(searched, len(whole)) if scores[i] > -math.inf]
            exact = sorted(possible, key=lambda i: -round(scores[i], 9))[:top]  # stable: ties by number
            last = scores[exact[-1]] - 1e-9 if len(exact) == top else -math.inf
            goes_on = {tuple(row[:t]) for row in searched.tolist() for t in range(len(whole)) if row[t] != PAD}
            exact = [tuple(PAD if t == EOS else t for t in i[:trie.depth]) for i in exact]
            assert got["top_size"] == len(exact)
            assert got["needed"] == sum(scores[p] >= last and scores[p] > -math.inf for p in goes_on)
            for number, beam in enumerate(traces):
                kept = [{tuple(p) for p, s in zip(level[user].tolist(), known[user].tolist(), strict=True)
                         if s > -math.inf} for level, known in zip(beam.trace, beam.trace_scores, strict=True)]
                assert got["survived"][number] == sum(target[:m] in kept[m - 1] for m in range(1, trie.depth + 1))
                final = [tuple(c) for c, s in zip(beam.codes[user].tolist(), beam.scores[user].tolist(), strict=True)
                         if s > -math.inf]
                assert got["beam_rank"][number] == (1 + final.index(target) if target in final else 0)
                assert got["retained"][number] == [sum(i[:m] in kept[m - 1] for i in exact)
                                                   for m in range(1, trie.depth + 1)]
            flat, among_valid = naive_token_ranks(table, 2 + user, whole[:trie.depth], searched)
            assert facts["token_rank/flat"][user].tolist() == flat
            assert facts["token_rank/trie"][user].tolist() == among_valid


@pytest.mark.parametrize(("impossible", "eos"), [(0.0, False), (0.4, False), (0.0, True), (0.2, True)])
@pytest.mark.parametrize("seed", range(6))
def test_all_facts_on_random_tries(seed: int, impossible: float, eos: bool) -> None:
    check_against_python(random_table(seed, spread=1.0 + seed / 2, impossible=impossible), ragged_codes(seed), BOTH,
                         top=1 + 3 * seed, cap=1 + 4 * seed, beams=(1, 3, 8, 60), seed=seed, eos=eos)


@pytest.mark.parametrize("seed", range(4))
def test_all_facts_with_exact_ties(seed: int) -> None:
    check_against_python(whole_table(seed), ragged_codes(seed + 10), ("flat",), top=7, cap=9, beams=(1, 2, 4, 7, 60),
                         seed=seed)


def test_a_user_without_any_possible_id() -> None:
    trie = Trie.from_codes(np.array([[2, 4], [2, 5], [3, 4]]))
    facts = diagnose_users(Table(lambda user, prefix: [-math.inf] * 7), histories(1), trie, torch.tensor([[2, 4]]),
                           beams=[2], normalisers=BOTH)
    for name in BOTH:
        assert facts[f"{name}/rank"].tolist() == [1]  # nothing is greater
        assert facts[f"{name}/top_size"].tolist() == [0] and facts[f"{name}/needed"].tolist() == [1]
        assert facts[f"{name}/survived"].tolist() == [[0]] and facts[f"{name}/beam_rank"].tolist() == [[0]]
        assert facts[f"{name}/retained"].tolist() == [[[0, 0]]]


@pytest.mark.parametrize("normaliser", BOTH)
@pytest.mark.parametrize("kind", ["tiger", "llama"])
def test_beams_on_the_table_are_those_of_beam_search(kind: str, normaliser: str) -> None:
    model, trie = tiny(kind), Trie.from_codes(ragged_codes(7))
    with torch.inference_mode():
        table = PrefixScores(model, padded_histories(), trie, [normaliser])
        beams = {width: diagnose.Beam(table.tree, 5, width) for width in (1, 3, 7, 60)}
        everybody = torch.ones(5, 1, dtype=torch.long)
        pad = torch.cat([0 * everybody, *[everybody] * 3], dim=1)
        diagnose._search(table, {normaliser: list(beams.values())}, pad, 1, 1)
    for width, beam in beams.items():
        real = beam_search(model, padded_histories(), trie, num_beams=width, normaliser=normaliser)
        for level in range(trie.depth):
            kept, scores = beam.nodes[level + 1], beam.scores[level + 1]
            assert torch.equal(torch.tensor(trie.token)[kept].masked_fill(scores.isneginf(), PAD),
                               real.trace[level][:, :, -1])
            torch.testing.assert_close(scores, real.trace_scores[level], atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_identities(seed: int) -> None:
    """What must hold of any model. Over the valid children an only child has probability 1, and ties with an ID that
    ends before it; the beam's place is then behind the rank."""
    codes = ragged_codes(seed + 30)
    trie, table, beams = Trie.from_codes(codes), random_table(seed, spread=2.0), (1, 2, 5, 60)
    targets = torch.tensor(prefixes(codes, 3))
    users = histories(len(targets))
    facts = diagnose_users(table, users, trie, targets, beams=beams, normalisers=BOTH, top=10, cap=100)
    numbers = torch.arange(len(targets))
    for name in BOTH:
        rank, survived, retained = (facts[f"{name}/{fact}"].astype(int) for fact in ("rank", "survived", "retained"))
        assert (np.diff(retained, axis=2) <= 0).all() and (retained <= facts[f"{name}/top_size"][:, None, None]).all()
        assert rank.tolist() == exact_ranks(table, users, trie, targets, normaliser=name).tolist()
        wide = facts[f"{name}/beam_rank"][:, 3]
        assert (wide == rank).all() if name == "flat" else (wide >= rank).all()
        assert (survived[:, 3] == trie.depth).all()
        for number, width in enumerate(beams):
            found = beam_search(table, users, trie, num_beams=width, normaliser=name).ids == numbers[:, None]
            assert ((survived[:, number] == trie.depth) == found.any(dim=1).numpy()).all()
            assert ((facts[f"{name}/beam_rank"][:, number] > 0) == found.any(dim=1).numpy()).all()
            violated = (facts["token_rank/trie"] > width).any(axis=1)
            assert not (violated & (survived[:, number] == trie.depth)).any()
        mine = exact_top_k(table, users, trie, k=10, normaliser=name).ids == numbers[:, None]
        assert ((wide <= 10) == mine.any(dim=1).numpy()).all()


def test_every_prefix_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "made", [])
    monkeypatch.setattr(diagnose, "PrefixScores", Watched)
    codes = ragged_codes(9)
    trie, table = Trie.from_codes(codes), random_table(1, spread=3.0)
    diagnose_users(table, histories(8), trie, torch.tensor(codes[:8]), beams=[1, 2, 5], normalisers=BOTH, top=3, cap=5)
    read = Watched.made[0].read
    assert len(Watched.made) == 1 and len(read) == len(set(read)) == int(Watched.made[0].reads.sum())
    everything = sum(trie.child_start[n] < trie.child_start[n + 1] for n in range(trie.level_start[-2]))
    assert len(read) < 8 * everything


@pytest.mark.parametrize(("cap", "kind"), [(100, np.uint8), (255, np.uint8), (256, np.uint16), (70000, np.uint32)])
def test_types_and_shapes(cap: int, kind: type) -> None:
    facts = card_facts(beams=[1, 300], normalisers=BOTH, cap=cap, top=4)
    assert facts["flat/rank"].dtype == kind and facts["trie/prefix_rank"].dtype == kind
    assert facts["flat/beam_rank"].dtype == np.uint16 and facts["flat/retained"].dtype == np.uint8
    shapes = {f"{n}/{f}": ((6,), (6, 3), (6,))[extra] for n in BOTH for f, extra in FACTS.items()}
    shapes |= {f"{n}/{f}": (6, 2) for n in BOTH for f in ("survived", "beam_rank")}
    shapes |= {f"{n}/retained": (6, 2, 3) for n in BOTH} | {f"token_rank/{n}": (6, 3) for n in BOTH}
    assert {name: values.shape for name, values in facts.items()} == shapes


def test_nan_is_refused_and_so_are_widths_of_nothing() -> None:
    trie, targets = Trie.from_codes(CARD), torch.tensor(CARD[:2])
    table = Table(lambda user, prefix: [math.nan if user == 3 else 0.0] * 10)
    with pytest.raises(ValueError, match="user row 1 are NaN"):
        diagnose_users(table, histories(2), trie, targets, beams=[2], normalisers=BOTH)
    for wrong in ({"beams": [2, 0]}, {"beams": []}, {"beams": [2], "top": 0}, {"beams": [2], "cap": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            diagnose_users(table, histories(2), trie, targets, normalisers=BOTH, **wrong)


def small_data() -> tuple[TokenisedInstances, Trie]:
    """Nine rows over ten items, histories of one to five items."""
    random = np.random.default_rng(4)
    ids = SemanticIds.from_codes(random.integers(0, 5, size=(10, 3)), (5, 5, 5))
    lengths = random.integers(1, 6, size=9)
    instances = Instances(np.arange(9), random.integers(0, 10, 9), [
        random.integers(0, 10, length) for length in lengths])
    return TokenisedInstances(instances, ids, (EOS,), "cpu"), Trie.from_codes(ids.tokens)


@pytest.mark.parametrize("users", [1, 4, 64])
def test_rows_keep_their_order_whatever_the_batches(users: int) -> None:
    data, trie = small_data()
    memory = users * bytes_of_a_user(tiny("tiger"), trie) / 2**30
    assert users_at_once(tiny("tiger"), trie, memory) == users and users_at_once(tiny("tiger"), trie, memory / 1e6) == 1
    rows = np.array([7, 0, 3, 8, 5, 1])
    asked = {"beams": [1, 3], "normalisers": BOTH, "top": 4, "cap": 6}
    facts = diagnose_rows(tiny("tiger"), data, rows, trie, memory_gib=memory, **asked)
    assert facts.pop("rows").tolist() == rows.tolist()
    for position, row in enumerate(rows):
        alone = diagnose_users(tiny("tiger"), data.histories(rows[[position]]), trie, data.targets(rows[[position]]),
                               **asked)
        assert {n: v[0].tolist() for n, v in alone.items()} == {n: v[position].tolist() for n, v in facts.items()}
        assert alone["flat/rank"][0] == exact_ranks(tiny("tiger"), data.histories(np.array([row])), trie,
                                                    data.targets(np.array([row])), cap=6)[0]
