"""Metrics: by hand, against an outside oracle, range, monotone in K."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from genrec_bench.core import registry

NAMES = registry.metrics.names()
RANKS = np.array([1, 4, 11, 25])


def metric(name: str):
    return registry.metrics.build({"name": name})


def test_the_registered_names() -> None:
    assert {"hr", "mrr", "ndcg", "recall"} <= set(NAMES)


@pytest.mark.parametrize(("name", "k", "expected"), [
    ("recall", 10, 0.5), ("recall", 20, 0.75), ("hr", 10, 0.5), ("hr", 20, 0.75),
    ("ndcg", 10, 0.3576691395), ("ndcg", 20, 0.4274048759),
    ("mrr", 10, 1.25 / 4), ("mrr", 20, (1.25 + 1 / 11) / 4),
])
def test_means_by_hand(name: str, k: int, expected: float) -> None:
    """Ranks 1, 4, 11, 25: NDCG@10 = (1 + 1/log2 5) / 4, NDCG@20 adds 1/log2 12 / 4."""
    assert metric(name).values(RANKS, k).mean() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("rank", "expected"), [(1, 1.0), (3, 0.5), (10, 0.2890648263), (20, 0.2276702487), (0, 0.0),
                                                (21, 0.0)])
def test_ndcg_of_one_rank(rank: int, expected: float) -> None:
    assert metric("ndcg").values(np.array([rank]), 20)[0] == pytest.approx(expected, abs=1e-10)


def test_ndcg_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, target = rng.normal(size=40), int(rng.integers(40))
        rank = np.array([1 + (scores > scores[target]).sum()])
        for k in (1, 5, 10, 40):
            oracle = ndcg_score(np.eye(40)[[target]], scores[None], k=k)
            assert metric("ndcg").values(rank, k)[0] == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_contract_of_every_metric(name: str) -> None:
    """Range, miss, order, K and shape; a plug-in cannot escape by being forgotten."""
    instance = metric(name)
    low, high = instance.value_range
    ranks = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
    previous = None
    for k in (1, 2, 5, 10, 100, 255):
        values = instance.values(ranks, k)
        assert values.shape == ranks.shape and values.dtype == np.float64
        assert values.min() >= low and values.max() <= high
        flat = values.ravel()
        assert flat[0] == (low if instance.increasing else high)
        assert (np.diff(flat[1:]) * (-1 if instance.increasing else 1) >= 0).all()
        assert previous is None or (values >= previous).all() == instance.increasing
        previous = values
    assert registry.metrics.build(registry.resolved(instance)) == instance


def test_hit_rate_is_recall() -> None:
    ranks = np.arange(60)
    for k in (1, 7, 20):
        np.testing.assert_array_equal(metric("hr").values(ranks, k), metric("recall").values(ranks, k))


def test_ndcg_is_at_most_recall_and_mrr_at_most_ndcg() -> None:
    ranks = np.arange(60)
    recall, ndcg, mrr = (metric(n).values(ranks, 20) for n in ("recall", "ndcg", "mrr"))
    assert (mrr <= ndcg).all() and (ndcg <= recall).all()
    assert ndcg[2] == pytest.approx(1 / math.log2(3))


@pytest.mark.parametrize(("ranks", "k"), [(np.array([1]), 0), (np.array([-1]), 5), (np.array([1.0]), 5)])
def test_bad_arguments(ranks: np.ndarray, k: int) -> None:
    with pytest.raises(ValueError):
        metric("recall").values(ranks, k)
