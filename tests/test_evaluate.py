"""The evaluator against naive loops, simulation of random order inside a group, both policies and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from genrec_bench import evaluate
from genrec_bench.contracts import Instances, Rankings
from genrec_bench.core import registry
from genrec_bench.evaluate import (
    expected_values,
    items_by_id,
    misses,
    rank_rows,
    rankings_from_lists,
    rankings_from_pairs,
    rankings_from_scores,
    score,
)
from genrec_bench.metrics.base import row_values


def naive_lists(lists, targets, sizes, max_k, histories=None, target_items=None, id_of_item=None):
    """One user at a time, one ID at a time, with the items of each ID spelled out."""
    rows = []
    for u, listed in enumerate(lists):
        gone = set() if histories is None else set(histories[u].tolist())
        members = {s: sizes[s] - sum(id_of_item[i] == s for i in gone) for s in range(len(sizes))}
        place, id_place, found = 1, 1, False
        for s in listed:
            if s < 0:
                continue
            if s == targets[u]:
                found = True
                break
            place += members[s]
            id_place += members[s] > 0
        ok = found and place <= max_k
        rows.append((place if ok else 0, members[targets[u]], id_place if found and id_place <= max_k else 0))
    return np.array(rows).T


def random_lists(seed: int, users: int = 40, num_ids: int = 30, k: int = 12):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, size=num_ids)
    lists = np.stack([rng.permutation(num_ids)[:k] for _ in range(users)])
    lists[rng.random(lists.shape) < 0.1] = -1
    id_of_item = rng.permutation(np.repeat(np.arange(num_ids), sizes))
    items = rng.integers(len(id_of_item), size=users)
    histories = [rng.integers(len(id_of_item), size=rng.integers(0, 25)) for _ in range(users)]
    return lists, id_of_item[items], sizes, id_of_item, items, histories


def simulate(metric, lists, targets, sizes, k, draws, seed):
    """Mean value where the items of every ID come in a fresh random order and the target is one of them."""
    rng = np.random.default_rng(seed)
    total = np.zeros(len(lists))
    for _ in range(draws):
        for u, listed in enumerate(lists):
            order = np.concatenate([[s] * sizes[s] for s in listed if s >= 0])
            spots = np.flatnonzero(order == targets[u])
            rank = rng.choice(spots) + 1 if len(spots) else 0
            total[u] += metric.values(np.array([rank]), k)[0]
    return total / draws


@pytest.mark.parametrize("seed", range(5))
def test_scores_against_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, size=(30, 25)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    targets = rng.integers(25, size=30)
    scores[np.arange(30), targets] = rng.integers(0, 8, size=30)
    histories = [rng.integers(25, size=rng.integers(0, 12)) for _ in range(30)]
    for seen in (None, histories):
        got = rankings_from_scores(scores, targets, max_k=10, seen=seen)
        for u in range(30):
            gone = set() if seen is None else set(seen[u].tolist())
            if targets[u] in gone:
                assert (got.ranks[u], got.ties[u], got.id_ranks[u]) == (0, 1, 0)
                continue
            kept = [scores[u, i] for i in range(25) if i not in gone]
            own = scores[u, targets[u]]
            greater, equal = sum(s > own for s in kept), sum(s == own for s in kept)
            assert got.ties[u] == equal
            assert got.ranks[u] == (greater + 1 if greater + 1 <= 10 else 0)
            assert got.id_ranks[u] == (greater + equal if greater + equal <= 10 else 0)


def test_scores_without_ties_are_plain_ranks() -> None:
    scores = np.random.default_rng(1).normal(size=(20, 50))
    got = rankings_from_scores(scores, np.arange(20), max_k=50)
    ranks = (np.argsort(np.argsort(-scores, axis=1), axis=1) + 1)[np.arange(20), np.arange(20)]
    np.testing.assert_array_equal(got.ranks, ranks)
    np.testing.assert_array_equal(got.id_ranks, ranks)
    assert (got.ties == 1).all()


def test_a_constant_score_is_worth_chance() -> None:
    """All 50 items equal: expected recall@10 is 10/50, and no ID-level credit is earned by it."""
    result = score(rankings_from_scores(np.zeros((4, 50)), np.arange(4), max_k=20))
    assert result["recall@10"] == pytest.approx(0.2)
    assert result["id_recall@10"] == 0.0


def test_what_was_seen_is_the_same_as_removed_columns_and_a_seen_target_is_a_miss() -> None:
    scores = np.random.default_rng(2).normal(size=(1, 20))
    got = rankings_from_scores(scores, np.array([3]), max_k=20, seen=[np.array([0, 5, 5, 9])])
    kept = np.delete(scores[0], [0, 5, 9])
    assert got.ranks[0] == 1 + (kept > scores[0, 3]).sum()
    got = rankings_from_scores(scores, np.array([3]), max_k=20, seen=[np.array([0, 3])])
    assert (got.ranks[0], got.ties[0], got.id_ranks[0]) == (0, 1, 0)


def test_both_policies_in_batches_are_those_of_one_table() -> None:
    """Rows of 9 users, some with two; a metric of a user is the mean of the rows."""
    rng = np.random.default_rng(3)
    scores, users = rng.integers(0, 9, size=(12, 25)).astype(float), np.array([0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 8])
    seen = tuple(rng.integers(25, size=n) for n in rng.integers(0, 9, size=12))
    rows = Instances(users, rng.integers(25, size=12), rng.integers(25, size=(12, 1)), seen)
    ranked = rank_rows(lambda batch: scores[batch], rows, max_k=20, batch_size=5)
    for got, wanted in zip(ranked, (rankings_from_scores(scores, rows.targets, max_k=20),
                                    rankings_from_scores(scores, rows.targets, max_k=20, seen=seen)), strict=True):
        for name in ("ranks", "ties", "id_ranks"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
        values = row_values("ndcg", wanted, 10)
        by_user = [values[users == user].mean() for user in range(9)]
        np.testing.assert_allclose(expected_values("ndcg", got, 10), by_user)
        assert score(got)["ndcg@10"] == pytest.approx(np.mean(by_user))


def made_rows(rng: np.random.Generator, items: int) -> Instances:
    """40 rows of as many users, of whom some had nothing and some an item several times, or the target."""
    seen = tuple(rng.integers(items, size=n) for n in rng.integers(0, 9, size=40))
    return Instances(np.arange(40), rng.integers(items, size=40), rng.integers(items, size=(40, 1)), seen)


@pytest.mark.parametrize("held", [1, 900, 2**25])
@pytest.mark.parametrize("form", ["sparse", "alike"])
def test_scores_of_every_form_in_batches_of_any_size_rank_as_a_table(form: str, held: int,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse scores where what is left out, what is stored as 0 and what is below 0 meet targets of each kind."""
    monkeypatch.setattr("genrec_bench.evaluate.BATCH_BYTES", held)
    rng = np.random.default_rng(5)
    rows, table = made_rows(rng, 25), rng.integers(-2, 4, size=(40, 25)).astype(float)
    if form == "alike":
        table, given = np.tile(table[0], (40, 1)), lambda batch: table[0]
    else:
        left_out = rng.random((40, 25)) < 0.4
        table[left_out] = 0.0
        def given(batch: np.ndarray) -> sparse.csr_array:
            row, item = np.nonzero(~left_out[batch])
            return sparse.csr_array((table[batch][row, item], (row, item)), shape=(len(batch), 25))
    ranked = rank_rows(given, rows, max_k=20)
    for got, seen in zip(ranked, (None, rows.seen), strict=True):
        wanted = rankings_from_scores(table, rows.targets, max_k=20, seen=seen)
        for name in ("ranks", "ties", "id_ranks"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))


def test_batches_grow_to_what_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec_bench.evaluate.FIRST_BATCH", 2)
    sizes: list[int] = []
    for held in (8 * 25 * 7, 1):
        monkeypatch.setattr("genrec_bench.evaluate.BATCH_BYTES", held)
        rank_rows(lambda batch: sizes.append(len(batch)) or np.zeros((len(batch), 25)),
                  made_rows(np.random.default_rng(6), 25), max_k=5)
    assert sizes == [2, 4, 7, 7, 7, 7, 6, 2, *[1] * 38]


@pytest.mark.parametrize(("value", "item", "text"), [
    (np.nan, 2, "row 1 has the score nan for item 2"), (np.inf, 2, "row 1 has the score inf"),
    (-np.inf, 0, "row 1 has the score -inf for its target")])
def test_bad_scores(value: float, item: int, text: str) -> None:
    scores = np.zeros((3, 4))
    scores[1, item] = value
    with pytest.raises(ValueError, match=text):
        rankings_from_scores(scores, np.zeros(3, dtype=int), max_k=3)
    rows = Instances(np.arange(3), np.zeros(3, dtype=int), np.zeros((3, 1), dtype=int), (np.arange(0),) * 3)
    with pytest.raises(ValueError, match=text):
        rank_rows(lambda batch: sparse.csr_array(scores[batch]), rows, max_k=3)
    with pytest.raises(ValueError, match=text.replace("row 1", "row 0")):
        rank_rows(lambda batch: scores[1], rows, max_k=3)


@pytest.mark.parametrize(("targets", "seen", "text"), [
    ([0, 4], None, "row 1 has target 4"), ([0, -1], None, "row 1"), ([0], None, "one target a row"),
    ([0, 1], [np.array([0]), np.array([7])], "row 1 has seen item 7")])
def test_bad_targets_and_seen_items(targets, seen, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        rankings_from_scores(np.zeros((2, 4)), np.array(targets), max_k=3, seen=seen)


@pytest.mark.parametrize("seed", range(6))
def test_lists_against_a_loop(seed: int) -> None:
    lists, targets, sizes, id_of_item, items, histories = random_lists(seed)
    got = rankings_from_lists(lists, targets, sizes, max_k=15)
    np.testing.assert_array_equal([got.ranks, got.ties, got.id_ranks], naive_lists(lists, targets, sizes, 15))
    histories = [np.setdiff1d(items, [i for i in range(len(id_of_item)) if id_of_item[i] == target])
                 for items, target in zip(histories, targets, strict=True)]  # the target's ID keeps an item
    taken = items_by_id(histories, id_of_item, len(sizes))
    got = rankings_from_lists(lists, targets, sizes, max_k=15, taken=taken)
    expected = naive_lists(lists, targets, sizes, 15, histories, items, id_of_item)
    np.testing.assert_array_equal([got.ranks, got.ties, got.id_ranks], expected)


def test_lists_by_hand() -> None:
    """IDs 0, 1, 2 with 3, 1, 2 items; list (0, 2, 1); the target's ID is 2: places 4 and 5, second ID."""
    got = rankings_from_lists(np.array([[0, 2, 1]]), np.array([2]), np.array([3, 1, 2]), max_k=5)
    assert (got.ranks[0], got.ties[0], got.id_ranks[0]) == (4, 2, 2)
    assert expected_values("recall", got, 4)[0] == 0.5
    assert expected_values("ndcg", got, 5)[0] == pytest.approx((1 / np.log2(5) + 1 / np.log2(6)) / 2)
    taken = items_by_id([np.array([0, 1, 2, 4, 4])], np.array([0, 0, 0, 1, 2, 2]), 3)
    got = rankings_from_lists(np.array([[0, 2, 1]]), np.array([2]), np.array([3, 1, 2]), max_k=5, taken=taken)
    assert (got.ranks[0], got.ties[0], got.id_ranks[0]) == (1, 1, 1)


def test_lists_and_scores_agree() -> None:
    """Scores that are equal within an ID rank items exactly as the list of IDs does."""
    lists, targets, sizes, id_of_item, items, histories = random_lists(7, k=30)
    lists = np.stack([np.random.default_rng(u).permutation(30) for u in range(40)])
    by_id = np.empty((40, 30))
    np.put_along_axis(by_id, lists, -np.arange(30.0)[None, :].repeat(40, 0), axis=1)
    one = misses(rankings_from_lists(lists, targets, sizes, max_k=200,
                                     taken=items_by_id(histories, id_of_item, len(sizes))), histories, items)
    two = rankings_from_scores(by_id[:, id_of_item], items, max_k=200, seen=histories)
    np.testing.assert_array_equal(one.ranks, two.ranks)
    np.testing.assert_array_equal(one.ties, two.ties)


@pytest.mark.parametrize(("lists", "target", "sizes", "text"), [
    ([[0, 1, 0]], 0, [1, 1], "twice"), ([[0, 2]], 0, [1, 1], "outside -1 to 1"),
    ([[0, 1]], 2, [1, 1], "target 2"), ([[0, 1]], 0, [1, 0], "semantic ID 1 has 0 items")])
def test_bad_lists(lists, target, sizes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        rankings_from_lists(np.array(lists), np.array([target]), np.array(sizes), max_k=5)


@pytest.mark.parametrize("name", ["recall", "ndcg", "mrr"])
def test_expectation_is_the_mean_over_random_orders(name: str) -> None:
    lists, targets, sizes, *_ = random_lists(11, users=15)
    metric = registry.metrics.build({"name": name})
    got = expected_values(name, rankings_from_lists(lists, targets, sizes, max_k=20), 10)
    np.testing.assert_allclose(got, simulate(metric, lists, targets, sizes, 10, 600, 3), atol=0.09)
    assert got.mean() == pytest.approx(simulate(metric, lists, targets, sizes, 10, 600, 4).mean(), abs=0.02)


@pytest.mark.parametrize("name", registry.metrics.names())
def test_expectation_against_a_loop(name: str) -> None:
    rng = np.random.default_rng(5)
    metric = registry.metrics.build({"name": name})
    rankings = Rankings(rng.integers(0, 21, size=200), rng.integers(1, 40, size=200), np.zeros(200, dtype=int))
    for k in (1, 5, 20):
        expected = [metric.values(np.arange(f, f + c), k).mean() if f else 0.0
                    for f, c in zip(rankings.ranks, rankings.ties, strict=True)]
        np.testing.assert_allclose(expected_values(metric, rankings, k), expected, atol=1e-14)


def test_expectation_of_stored_ranks_does_not_overflow() -> None:
    """Record files hold uint8: 200 + 200 must not wrap."""
    rankings = Rankings(*(np.array([200], dtype=np.uint8),) * 3)
    assert expected_values("recall", rankings, 255)[0] == pytest.approx(56 / 200)


def test_without_ties_item_and_id_level_are_equal_to_the_bit() -> None:
    places = np.arange(0, 30)
    result = score(Rankings(places, np.ones(30, dtype=int), places))
    assert set(result) == {f"{p}{m}@{k}" for p in ("", "id_") for m in registry.metrics.names() for k in evaluate.KS}
    for key, value in result.items():
        assert type(value) is float
        if not key.startswith("id_"):
            assert result[f"id_{key}"] == value
    assert not any(key.startswith("id_") for key in score(Rankings(places, places, places), id_level=False))


def test_score_is_monotone_in_k_and_by_hand() -> None:
    ranks = np.array([1, 4, 11, 0])
    result = score(Rankings(ranks, np.ones(4, dtype=int), ranks))
    assert result["recall@10"] == 0.5
    assert result["ndcg@10"] == pytest.approx(0.3576691395)
    for name in registry.metrics.names():
        assert [result[f"{name}@{k}"] for k in (1, 5, 10, 20)] == sorted(result[f"{name}@{k}"] for k in (1, 5, 10, 20))


def test_score_needs_users() -> None:
    with pytest.raises(ValueError, match="no users"):
        score(Rankings(*(np.zeros(0, dtype=int),) * 3))


def test_pairs_are_the_scores_of_the_listed_items() -> None:
    rng = np.random.default_rng(9)
    scores = rng.integers(0, 6, size=(25, 18)).astype(float)
    targets = rng.integers(18, size=25)
    listed = rng.random(scores.shape) < 0.6
    rows, items = np.nonzero(listed)
    order = rng.permutation(len(rows))
    got = rankings_from_pairs(rows[order], items[order], scores[rows, items][order], targets, max_k=8)
    dense = np.where(listed, scores, -np.inf)
    inside = listed[np.arange(25), targets]
    expected = rankings_from_scores(dense[inside], targets[inside], max_k=8)
    np.testing.assert_array_equal(got.ranks[inside], expected.ranks)
    np.testing.assert_array_equal(got.ties[inside], expected.ties)
    np.testing.assert_array_equal(got.id_ranks[inside], expected.id_ranks)
    assert (got.ranks[~inside] == 0).all() and (got.ties[~inside] == 1).all()


def test_bad_pairs() -> None:
    one = np.array([0, 0])
    with pytest.raises(ValueError, match="row 0 lists item 3 twice"):
        rankings_from_pairs(one, np.array([3, 3]), np.array([1.0, 2.0]), np.array([3]), max_k=5)
    with pytest.raises(ValueError, match="entry 1"):
        rankings_from_pairs(one, np.array([3, 4]), np.array([1.0, np.nan]), np.array([3]), max_k=5)
    with pytest.raises(ValueError, match="rows"):
        rankings_from_pairs(one + 1, np.array([3, 4]), np.array([1.0, 2.0]), np.array([3]), max_k=5)
