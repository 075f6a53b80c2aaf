"""What beam search loses: the card's toy by hand, naive loops on random diagnoses, identities, intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from genrec_bench.analysis import pruning
from genrec_bench.analysis.pruning import Estimate
from genrec_bench.results.diagnoses import Diagnosis

NEVER = 0


def diagnosis(facts: dict[str, list], *, beams: tuple[int, ...], levels: int, top: int = 20, cap: int = 100,
              normalisers: tuple[str, ...] = ("flat",), sample: str = "s", run_id: str = "r") -> Diagnosis:
    """A diagnosis of some facts; those that are not given are 0."""
    users = len(next(iter(facts.values())))
    shapes = {"rank": (), "prefix_rank": (levels,), "survived": (len(beams),), "beam_rank": (len(beams),),
              "retained": (len(beams), levels), "top_size": (), "needed": ()}
    arrays = {f"{n}/{name}": np.zeros((users, *shape), np.uint8) for n in normalisers for name, shape in shapes.items()}
    arrays |= {"rows": np.arange(users, dtype=np.int32),
               **{f"token_rank/{v}": np.ones((users, levels), np.uint8) for v in ("flat", "trie")}}
    arrays |= {name: np.array(values, np.uint8) for name, values in facts.items()}
    about = {"schema": 1, "run_id": run_id, "beams": list(beams), "normalisers": list(normalisers), "top": top,
             "cap": cap, "levels": levels,
             "sample": {"users": users, "of": users, "rule": "all", "sha256": sample},
             "catalogue": {"items": 6, "ids": 6, "prefixes": [3, 5, 6], "nodes": 9},
             "decoding": {"normaliser": "flat", "num_beams": 20, "temperature": 1.0}, "versions": {}}
    return Diagnosis(about, arrays)


def toy(top: int = 2) -> Diagnosis:
    """The card's toy with flat scores: one user an item, full ranking i2, i4, i1, i3, i5, i0.

    Beams by hand: 1 keeps (0), (0,4), i2; 2 keeps (0) (1), (0,4) (1,3), i2 i3; 3 keeps all, (0,4) (1,3) (1,5),
    i2 i4 i3. The exact top 2 is i2, i4, the top 3 has i1 besides, whose (0,3) no beam has.
    """
    retained = {2: [[1, 1, 1], [2, 1, 1], [2, 2, 2]], 3: [[2, 1, 1], [3, 1, 1], [3, 2, 2]]}[top]
    return diagnosis({
        "flat/rank": [6, 3, 1, 4, 2, 5],
        "flat/prefix_rank": [[1, 4, 6], [1, 4, 3], [1, 1, 1], [2, 2, 4], [2, 3, 2], [3, 5, 5]],
        "flat/survived": [[1, 1, 1], [1, 1, 1], [3, 3, 3], [0, 3, 3], [0, 1, 3], [0, 0, 1]],
        "flat/beam_rank": [[0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 2, 3], [0, 0, 2], [0, 0, 0]],
        "flat/retained": [retained] * 6, "flat/top_size": [top] * 6, "flat/needed": [6] * 6,
        "token_rank/flat": [[1, 2, 2], [1, 2, 1], [1, 1, 1], [2, 1, 2], [2, 2, 1], [3, 1, 1]],
        "token_rank/trie": [[1, 2, 2], [1, 2, 1], [1, 1, 1], [2, 1, 1], [2, 2, 1], [3, 1, 1]],
    }, beams=(1, 2, 3), levels=3, top=top, cap=6)


def values(estimates: list[Estimate]) -> list[float]:
    return [e.value for e in estimates]


@pytest.mark.parametrize(("k", "beam", "share", "n"), [(1, 2, 0, 1), (2, 2, 1 / 2, 2), (3, 3, 1 / 3, 3), (1, 1, 0, 1),
                                                       (2, 3, 0, 2)])
def test_pruning_rate_of_the_toy(k: int, beam: int, share: float, n: int) -> None:
    found = pruning.pruning_rate([toy()], "flat", k=k, beam=beam)
    assert found.value == pytest.approx(share) and found.n == n and found.low <= share <= found.high


def test_a_target_can_be_pruned_without_a_violation() -> None:
    """i4 falls at step 2 of beam 2, while each of its tokens ranks within 2; with i5 counted too there is one."""
    for vocabulary in ("flat", "trie"):
        found = pruning.violation_share([toy()], "flat", k=2, beam=2, vocabulary=vocabulary)
        assert (found.value, found.n) == (0.0, 1)
    lost = pruning.violation_share([toy()], "flat", k=1, beam=2, vocabulary="trie")
    assert math.isnan(lost.value) and math.isnan(lost.low) and math.isnan(lost.high) and lost.n == 0


def test_violations_are_told_apart_by_vocabulary() -> None:
    """Of three pruned targets one has a token below the beam among all tokens, and none among the valid ones."""
    run = diagnosis({"flat/rank": [1, 2, 2, 1], "flat/beam_rank": [[0], [0], [0], [1]],
                     "token_rank/flat": [[3, 1], [2, 2], [1, 1], [9, 9]],
                     "token_rank/trie": [[2, 1], [2, 2], [1, 1], [9, 9]]}, beams=(2,), levels=2)
    shares = {v: pruning.violation_share([run], "flat", k=2, beam=2, vocabulary=v) for v in ("flat", "trie")}
    assert shares["flat"].value == pytest.approx(1 / 3) and shares["trie"].value == 0 and shares["trie"].n == 3


def test_curves_of_the_toy() -> None:
    sixth = 1 / 6
    survival = {1: [3, 1, 1], 2: [5, 2, 2], 3: [6, 3, 3]}
    for beam, hits in survival.items():
        found = pruning.prefix_recall([toy()], "flat", reading="survival", beam=beam)
        assert values(found) == pytest.approx([h * sixth for h in hits])
        assert [e.n for e in found] == [6, 6, 6]
    for k, hits in {1: [3, 1, 1], 2: [5, 2, 2], 3: [6, 3, 3], 4: [6, 5, 4]}.items():
        found = pruning.prefix_recall([toy()], "flat", reading="rank", k=k)
        assert values(found) == pytest.approx([h * sixth for h in hits])
    assert values(pruning.retention([toy(2)], "flat", beam=2)) == pytest.approx([1, 0.5, 0.5])
    assert values(pruning.retention([toy(3)], "flat", beam=3)) == pytest.approx([1, 2 / 3, 2 / 3])


def test_metrics_of_the_toy() -> None:
    """Full: ranks 6 3 1 4 2 5. Beam 3: i2 first, i4 second, i3 third."""
    full = pruning.full_metric([toy()], "flat", metric="ndcg", k=3)
    assert full.value == pytest.approx((1 + 1 / math.log2(3) + 0.5) / 6)
    beam = pruning.beam_metric([toy()], "flat", metric="ndcg", k=2, beam=3)
    assert beam.value == pytest.approx((1 + 1 / math.log2(3)) / 6)
    assert pruning.beam_metric([toy()], "flat", metric="recall", k=3, beam=3).value == pytest.approx(0.5)
    for width, recall, lost in ((2, 2 / 6, 0.5), (3, 2 / 6, 0.0)):
        found = pruning.beam_metric([toy()], "flat", metric="recall", k=2, beam=width)
        assert found.value == pytest.approx(recall)
        assert pruning.pruning_rate([toy()], "flat", k=2, beam=width).value == pytest.approx(lost)
    assert pruning.needed([toy()], "flat").value == 6
    # (), then at most B of the 3 and 5 prefixes of one and two tokens
    assert [pruning.beam_positions(toy(), b) for b in (1, 2, 3, 9)] == [3, 5, 7, 9]


def test_the_gain_of_the_toy_over_itself_and_over_a_loser() -> None:
    """b ranks everything last: all of a's gain is a's own value, part of which its beam loses."""
    a = toy()
    same = pruning.gain_split([a], [a], "flat", metric="recall", k=3, beam=3)
    assert same.total == same.scoring == same.pruning == Estimate(0, 0, 0, 6)
    b = diagnosis({"flat/rank": [NEVER] * 6}, beams=(1, 2, 3), levels=3, cap=6, top=2)
    split = pruning.gain_split([a], [b], "flat", metric="recall", k=2, beam=2)
    # full: i2 and i4 within 2; beam 2: i2 and i3
    assert [e.value for e in (split.total, split.scoring, split.pruning)] == pytest.approx([2 / 6, 2 / 6, 0])
    first = pruning.gain_split([a], [b], "flat", metric="recall", k=3, beam=3)
    assert first.total.value == pytest.approx(3 / 6) and first.pruning.value == pytest.approx(0)
    lost = pruning.gain_split([b], [a], "flat", metric="mrr", k=3, beam=3)
    assert lost.total.value == pytest.approx(-(1 + 1 / 2 + 1 / 3) / 6)
    assert lost.scoring.value == pytest.approx(-(1 + 1 / 2 + 1 / 3) / 6)


def random_run(random: np.random.Generator, users: int, levels: int) -> Diagnosis:
    """Facts that agree with each other, drawn without a network: what survives all levels has a place in the beam."""
    survived = np.sort(random.integers(0, levels + 1, size=(users, 2)), axis=1)
    places = np.stack([random.integers(1, 4, users), random.integers(1, 8, users)], axis=1)
    ranks = random.integers(0, 12, size=(users, levels))
    return diagnosis({"flat/rank": ranks[:, -1], "flat/prefix_rank": ranks, "flat/survived": survived,
                      "flat/beam_rank": np.where(survived == levels, places, NEVER),
                      "flat/top_size": random.integers(1, 5, users),
                      "flat/retained": random.integers(0, 2, size=(users, 2, levels)),
                      "token_rank/flat": random.integers(1, 9, size=(users, levels)),
                      "token_rank/trie": random.integers(1, 5, size=(users, levels))},
                     beams=(3, 7), levels=levels, cap=11)


@pytest.mark.parametrize("case", range(12))
def test_all_values_against_loops(case: int) -> None:
    random = np.random.default_rng(case)
    users, seeds, levels = (int(random.integers(1, top)) for top in (40, 4, 5))
    runs = [random_run(random, users, levels) for _ in range(seeds)]
    k, beam = int(random.integers(1, 4)), 3 if case % 2 else 7
    index = {3: 0, 7: 1}[beam]
    wanted = lost = violated = 0
    recall = 0.0
    for run in runs:
        for u in range(run.num_users):
            place = int(run.arrays["flat/beam_rank"][u, index])
            recall += 1 <= place <= k
            if not 1 <= run.arrays["flat/rank"][u] <= k:
                continue
            wanted += 1
            if place == 0:
                lost += 1
                violated += any(rank > beam for rank in run.arrays["token_rank/flat"][u])
    rate = pruning.pruning_rate(runs, "flat", k=k, beam=beam)
    share = pruning.violation_share(runs, "flat", k=k, beam=beam, vocabulary="flat")
    assert (rate.n, share.n) == (wanted, lost)
    assert rate.value == pytest.approx(lost / wanted if wanted else math.nan, nan_ok=True)
    assert share.value == pytest.approx(violated / lost if lost else math.nan, nan_ok=True)
    cases = sum(run.num_users for run in runs)
    assert pruning.beam_metric(runs, "flat", metric="recall", k=k, beam=beam).value == pytest.approx(recall / cases)
    for m in range(runs[0].levels):
        kept = [run.arrays["flat/retained"][u, index, m] / run.arrays["flat/top_size"][u]
                for run in runs for u in range(run.num_users)]
        assert pruning.retention(runs, "flat", beam=beam)[m].value == pytest.approx(sum(kept) / cases)
        alive = [run.arrays["flat/survived"][u, index] >= m + 1 for run in runs for u in range(run.num_users)]
        assert pruning.prefix_recall(runs, "flat", beam=beam)[m].value == pytest.approx(sum(alive) / cases)


@pytest.mark.parametrize("case", range(12))
def test_identities(case: int) -> None:
    random = np.random.default_rng(100 + case)
    runs, others = ([random_run(random, 30, 3) for _ in range(1 + case % 3)] for _ in range(2))
    for beam in (3, 7):
        survival = pruning.prefix_recall(runs, "flat", beam=beam)
        assert all(a.value >= b.value for a, b in zip(survival, survival[1:], strict=False))
        assert survival[-1].value == pytest.approx(
            pruning.beam_metric(runs, "flat", metric="recall", k=beam, beam=beam).value)
    assert pruning.prefix_recall(runs, "flat", reading="rank", k=5)[-1].value == pytest.approx(
        pruning.full_metric(runs, "flat", metric="recall", k=5).value)
    split = pruning.gain_split(runs, others, "flat", metric="ndcg", k=3, beam=7)
    assert split.total.value == pytest.approx(split.scoring.value + split.pruning.value, abs=1e-12)
    one, two = (pruning.beam_metric(r, "flat", metric="ndcg", k=3, beam=7).value for r in (runs, others))
    assert split.total.value == pytest.approx(one - two)
    back = pruning.gain_split(others, runs, "flat", metric="ndcg", k=3, beam=7)
    assert (back.total.low, back.total.high) == pytest.approx((-split.total.high, -split.total.low), abs=1e-6)


def test_nothing_is_pruned_where_the_beam_covers_the_catalogue() -> None:
    ranks = [3, 1, 2, 5, 4, 6]
    run = diagnosis({"flat/rank": ranks, "flat/beam_rank": [[r] for r in ranks], "flat/survived": [[2]] * 6},
                    beams=(6,), levels=2)
    for k in range(1, 7):
        found = pruning.pruning_rate([run], "flat", k=k, beam=6)
        assert (found.value, found.n) == (0, k)
        assert pruning.beam_metric([run], "flat", metric="ndcg", k=k, beam=6) == pruning.full_metric(
            [run], "flat", metric="ndcg", k=k)
    split = pruning.gain_split([run], [toy_like(run)], "flat", metric="ndcg", k=6, beam=6)
    assert split.pruning == Estimate(0, 0, 0, 6) and split.scoring == split.total


def toy_like(run: Diagnosis) -> Diagnosis:
    """The same users, every target one place later."""
    ranks = [r + 1 for r in run.arrays["flat/rank"].tolist()]
    places = [[r if r <= 6 else 0] for r in ranks]
    ranks = [r if r <= 6 else 0 for r in ranks]
    return diagnosis({"flat/rank": ranks, "flat/beam_rank": places, "flat/survived": [[2]] * 6}, beams=(6,), levels=2)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 12), (12, 12), (1, 2), (3, 50), (49, 50), (333, 1000)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    interval = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert pruning.wilson(hits, n) == pytest.approx((interval.low, interval.high), abs=1e-12)


def shares(hits: list[int], n: int) -> list[Diagnosis]:
    """Runs with n wanted targets each, of which so many are pruned; the pruned are the first ones."""
    return [diagnosis({"flat/rank": [1] * n, "flat/beam_rank": [[0]] * h + [[1]] * (n - h)}, beams=(1,), levels=1)
            for h in hits]


def test_one_run_has_wilsons_interval_and_several_a_bootstrap() -> None:
    one = pruning.pruning_rate(shares([5], 40), "flat", k=1, beam=1)
    assert (one.low, one.high) == pytest.approx(pruning.wilson(5, 40))
    none = pruning.pruning_rate(shares([0, 0, 0], 40), "flat", k=1, beam=1)
    assert (none.value, none.n) == (0, 120) and (none.low, none.high) == pytest.approx(pruning.wilson(0, 40))
    every = pruning.pruning_rate(shares([40, 40], 40), "flat", k=1, beam=1)
    assert every.value == 1 and (every.low, every.high) == pytest.approx(pruning.wilson(40, 40))


def test_the_bootstrap_counts_users_once_and_seeds_as_drawn() -> None:
    """Equal seeds add nothing: the interval is that of users alone, near the normal one. Unequal seeds widen it."""
    n, hits = 400, 100
    equal = pruning.pruning_rate(shares([hits] * 3, n), "flat", k=1, beam=1)
    half = 1.96 * math.sqrt(0.25 * 0.75 / n)
    assert equal.value == 0.25 and equal.n == 3 * n
    assert (equal.low, equal.high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.006)
    spread = pruning.pruning_rate(shares([20, 100, 180], n), "flat", k=1, beam=1)
    assert spread.value == 0.25 and spread.low < equal.low - 0.05 and spread.high > equal.high + 0.05
    assert spread == pruning.pruning_rate(shares([20, 100, 180], n), "flat", k=1, beam=1)


def test_the_interval_of_a_mean_is_that_of_users() -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(1, 200, 500)
    run = diagnosis({"flat/needed": sizes}, beams=(1,), levels=1)
    found, half = pruning.needed([run], "flat"), 1.96 * sizes.std() / math.sqrt(500)
    assert found.value == pytest.approx(sizes.mean())
    assert (found.low, found.high) == pytest.approx((sizes.mean() - half, sizes.mean() + half), abs=half / 10)
    assert pruning.needed([diagnosis({"flat/needed": [7] * 5}, beams=(1,), levels=1)], "flat") == Estimate(7, 7, 7, 5)


def test_what_cannot_be_compared_is_refused() -> None:
    run, other = toy(), diagnosis({"flat/rank": [1] * 6}, beams=(1, 2, 3), levels=3, top=2, cap=6, sample="t",
                                  run_id="q")
    with pytest.raises(ValueError, match="runs r and q were diagnosed with another sample"):
        pruning.gain_split([run], [other], "flat", metric="recall", k=1, beam=1)
    with pytest.raises(ValueError, match="another sample"):
        pruning.pruning_rate([run, other], "flat", k=1, beam=1)
    moved = Diagnosis(run.about, {**run.arrays, "rows": run.arrays["rows"] + 1})
    with pytest.raises(ValueError, match="other users"):
        pruning.retention([run, moved], "flat", beam=1)
    with pytest.raises(ValueError, match="1 seeds and b 2"):
        pruning.gain_split([run], [run, run], "flat", metric="recall", k=1, beam=1)
    with pytest.raises(ValueError, match="other beams"):
        pruning.needed([run, Diagnosis({**run.about, "beams": [1, 2, 4]}, run.arrays)], "flat")
    with pytest.raises(ValueError, match="no diagnosis"):
        pruning.needed([], "flat")


@pytest.mark.parametrize(("call", "message"), [
    (lambda r: pruning.pruning_rate(r, "flat", k=3, beam=2), "above the beam of 2"),
    (lambda r: pruning.beam_metric(r, "flat", metric="ndcg", k=3, beam=2), "above the beam of 2"),
    (lambda r: pruning.pruning_rate(r, "flat", k=0, beam=2), "at least 1"),
    (lambda r: pruning.pruning_rate(r, "flat", k=2, beam=5), "beam 5 was not diagnosed; there are 1, 2, 3"),
    (lambda r: pruning.full_metric(r, "flat", metric="ndcg", k=7), "above 6"),
    (lambda r: pruning.prefix_recall(r, "flat", reading="rank", k=7), "above 6"),
    (lambda r: pruning.prefix_recall(r, "flat", reading="rank"), "needs k"),
    (lambda r: pruning.prefix_recall(r, "flat"), "needs beam"),
    (lambda r: pruning.prefix_recall(r, "flat", reading="place", beam=2), "survival or rank"),
    (lambda r: pruning.violation_share(r, "flat", k=1, beam=1, vocabulary="all"), "flat or trie"),
    (lambda r: pruning.needed(r, "trie"), "normaliser 'trie' was not diagnosed; there are flat"),
])
def test_wrong_questions_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call([toy()])
