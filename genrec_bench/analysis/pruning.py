"""What beam search loses, from diagnoses alone: shares, curves and the two parts of a gain, with 95% intervals.

Every function takes the diagnoses of one method, one a seed, all of the same users. All facts are ID-level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from genrec_bench.analysis.significance import LEVEL
from genrec_bench.core import registry
from genrec_bench.core.seeds import stream_seed
from genrec_bench.results.diagnoses import VOCABULARIES, Diagnosis

NUM_RESAMPLES = 2_000
READINGS = ("survival", "rank")


@dataclass(frozen=True)
class Estimate:
    """A mean or a share over the users of all seeds, with its 95% interval.

    n: cases it is a share of, summed over seeds; all three numbers are NaN where there is none.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class GainSplit:
    """What a has over b in a metric: `total` under beam search = `scoring` under full sorting + `pruning`, the rest."""

    total: Estimate
    scoring: Estimate
    pruning: Estimate


def pruning_rate(runs: Sequence[Diagnosis], normaliser: str, *, k: int, beam: int) -> Estimate:
    """PR@k: of the targets that full sorting ranks within k, the share that is not in the final beam.

    The interval is Wilson's for one run, else of a bootstrap over seeds and users; where none or all are pruned it is
    Wilson's for the users alone.
    Raises: ValueError for k above the beam, whose list is then shorter, or above the cap of the exact ranks.
    """
    _check_k(runs, k, beam=beam)
    return _share(*_targets(runs, normaliser, k, beam))


def violation_share(runs: Sequence[Diagnosis], normaliser: str, *, k: int, beam: int, vocabulary: str) -> Estimate:
    """Of the targets that PR@k counts as pruned, the share with a token that alone ranks below the beam's width.

    vocabulary: among whose tokens it ranks, "flat" = all, "trie" = the valid children of its prefix. Only with the
    latter does a violation imply pruning. Raises: ValueError, as `pruning_rate`, and for another vocabulary.
    """
    _check_k(runs, k, beam=beam)
    if vocabulary not in VOCABULARIES:
        raise ValueError(f"vocabulary must be {' or '.join(VOCABULARIES)}, got {vocabulary!r}")
    pruned, _ = _targets(runs, normaliser, k, beam)
    violated = np.stack([(run.token_rank(vocabulary) > beam).any(axis=1) for run in runs])
    return _share(pruned & violated, pruned)


def prefix_recall(runs: Sequence[Diagnosis], normaliser: str, *, reading: str = "survival", beam: int | None = None,
                  k: int | None = None) -> list[Estimate]:
    """The share of users whose target's prefix is found, after each level.

    reading: "survival" = it is in the beam of width `beam` (never rises; at the last level the beam's Recall@beam),
    or "rank" = it is among the k best of all prefixes of its length. Raises: ValueError.
    """
    runs = _same(runs)
    if reading == "survival":
        index = runs[0].beam(_given(beam, "beam"))
        levels = np.stack([run.of(normaliser, "survived")[:, index] for run in runs])
        found = [levels >= m for m in range(1, runs[0].levels + 1)]
    elif reading == "rank":
        _check_k(runs, _given(k, "k"))
        ranks = np.stack([run.of(normaliser, "prefix_rank") for run in runs])
        found = list(np.moveaxis(_within(ranks, k), 2, 0))
    else:
        raise ValueError(f"reading must be {' or '.join(READINGS)}, got {reading!r}")
    return [_share(hits, np.ones_like(hits)) for hits in found]


def retention(runs: Sequence[Diagnosis], normaliser: str, *, beam: int) -> list[Estimate]:
    """The mean share of each user's exact top IDs whose prefix is in the beam, after each level; it never rises."""
    return [_mean(level) for level in np.moveaxis(_retained(_same(runs), normaliser, beam), 2, 0)]


def full_metric(runs: Sequence[Diagnosis], normaliser: str, *, metric: str, k: int) -> Estimate:
    """A registered metric of the exact ranking of all semantic IDs. Raises: ValueError for k above the cap."""
    return _mean(_full(runs, normaliser, metric, k))


def beam_metric(runs: Sequence[Diagnosis], normaliser: str, *, metric: str, k: int, beam: int) -> Estimate:
    """A registered metric of the beam's list, cut at k. Raises: ValueError for k above the beam."""
    return _mean(_beam(runs, normaliser, metric, k, beam))


def gain_split(a: Sequence[Diagnosis], b: Sequence[Diagnosis], normaliser: str, *, metric: str, k: int,
               beam: int) -> GainSplit:
    """The difference a minus b, split into better scores and less pruning; the three share their resamples.

    a, b: diagnoses of the same users at the same seeds, in the same order of seeds.
    Raises: ValueError for other users, samples or numbers of seeds, and for k above the beam.
    """
    _check_pair(a, b)
    total = _beam(a, normaliser, metric, k, beam) - _beam(b, normaliser, metric, k, beam)
    scoring = _full(a, normaliser, metric, k) - _full(b, normaliser, metric, k)
    return GainSplit(_mean(total), _mean(scoring), _mean(total - scoring))


def pruning_change(a: Sequence[Diagnosis], b: Sequence[Diagnosis], normaliser: str, *, k: int, beam: int) -> Estimate:
    """`pruning_rate` of a over that of b, minus 1; each is asked about its own targets. Raises: ValueError, as
    `gain_split`."""
    _check_pair(a, b)
    _check_k([*a, *b], k, beam=beam)
    parts = [part for runs in (a, b) for part in _targets(runs, normaliser, k, beam)]
    return _of_sums(lambda lost, top, other, others_top: lost / top / (other / others_top) - 1, *parts)


def retention_change(a: Sequence[Diagnosis], b: Sequence[Diagnosis], normaliser: str, *, beam: int) -> Estimate:
    """The last level of `retention` of a over that of b, minus 1. Raises: ValueError, as `gain_split`."""
    _check_pair(a, b)
    return _of_sums(_relative, *(_retained(runs, normaliser, beam)[:, :, -1] for runs in (a, b)))


def beam_change(a: Sequence[Diagnosis], b: Sequence[Diagnosis], normaliser: str, *, metric: str, k: int, beam: int,
                against_beam: int) -> Estimate:
    """`beam_metric` of a over that of b, each at its own beam, minus 1. Raises: ValueError, as `gain_split`."""
    _check_pair(a, b)
    return _of_sums(_relative, _beam(a, normaliser, metric, k, beam), _beam(b, normaliser, metric, k, against_beam))


def prefix_growth(a: Sequence[Diagnosis], b: Sequence[Diagnosis], normaliser: str, *, beam: int) -> Estimate:
    """How much larger the relative gain of a over b in `prefix_recall` is at the last level than at the first.

    Raises: ValueError, as `gain_split`.
    """
    _check_pair(a, b)
    index = a[0].beam(beam)
    levels = [np.stack([run.of(normaliser, "survived")[:, index] for run in runs]) for runs in (a, b)]
    parts = [survived >= level for level in (1, a[0].levels) for survived in levels]
    return _of_sums(lambda first, others_first, last, others_last: last / others_last - first / others_first, *parts)


def needed(runs: Sequence[Diagnosis], normaliser: str) -> Estimate:
    """Mean number of prefixes a user, the empty one included, that an exact search for the top has to read."""
    return _mean(np.stack([run.of(normaliser, "needed") for run in _same(runs)]))


def beam_positions(run: Diagnosis, beam: int) -> int:
    """Prefixes a user, the empty one included, that a beam of this width reads: no level has more than exist."""
    return 1 + sum(min(beam, prefixes) for prefixes in run.about["catalogue"]["prefixes"][:-1])


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share; NaN without cases."""
    if not n:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, square = hits / n, z * z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == n else centre + half)


def _same(runs: Sequence[Diagnosis]) -> Sequence[Diagnosis]:
    """The runs, which can be looked at together. Raises: ValueError."""
    if not runs:
        raise ValueError("no diagnosis is given")
    for run in runs[1:]:
        for what in ("sample", "levels"):
            if run.about[what] != runs[0].about[what]:
                raise ValueError(f"runs {runs[0].run_id} and {run.run_id} were diagnosed with another {what}: "
                                 f"{runs[0].about[what]} and {run.about[what]}")
        if not np.array_equal(run.arrays["rows"], runs[0].arrays["rows"]):
            raise ValueError(f"runs {runs[0].run_id} and {run.run_id} were diagnosed for other users")
        if run.beams != runs[0].beams:
            raise ValueError(f"runs {runs[0].run_id} and {run.run_id} were diagnosed with other beams: "
                             f"{runs[0].beams} and {run.beams}")
    return runs


def _check_pair(a: Sequence[Diagnosis], b: Sequence[Diagnosis]) -> None:
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} seeds and b {len(b)}; a paired comparison needs the same ones")
    _same([*a, *b])


def _given(value: int | None, name: str) -> int:
    if value is None:
        raise ValueError(f"this reading needs {name}")
    return value


def _check_k(runs: Sequence[Diagnosis], k: int, beam: int | None = None) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if beam is not None and k > beam:
        raise ValueError(f"k = {k} is above the beam of {beam}, whose list is shorter")
    cap = min(run.about["cap"] for run in _same(runs))
    if k > cap:
        raise ValueError(f"k = {k} is above {cap}, the worst exact rank that was looked for")


def _within(ranks: np.ndarray, k: int) -> np.ndarray:
    return (ranks >= 1) & (ranks <= k)


def _targets(runs: Sequence[Diagnosis], normaliser: str, k: int, beam: int) -> tuple[np.ndarray, np.ndarray]:
    """(seeds, users) bool: targets within k that the beam loses, and all targets within k."""
    index = runs[0].beam(beam)
    wanted = _within(np.stack([run.of(normaliser, "rank") for run in runs]), k)
    lost = np.stack([run.of(normaliser, "beam_rank")[:, index] == 0 for run in runs])
    return wanted & lost, wanted


def _full(runs: Sequence[Diagnosis], normaliser: str, metric: str, k: int) -> np.ndarray:
    """(seeds, users) values of the exact ranking."""
    _check_k(runs, k)
    ranks = np.stack([run.of(normaliser, "rank") for run in runs])
    return registry.metrics.build({"name": metric}).values(ranks, k)


def _beam(runs: Sequence[Diagnosis], normaliser: str, metric: str, k: int, beam: int) -> np.ndarray:
    """(seeds, users) values of the beam's list."""
    runs = _same(runs)
    if k > beam:
        raise ValueError(f"k = {k} is above the beam of {beam}, whose list is shorter")
    index = runs[0].beam(beam)
    ranks = np.stack([run.of(normaliser, "beam_rank")[:, index] for run in runs])
    return registry.metrics.build({"name": metric}).values(ranks, k)


def _retained(runs: Sequence[Diagnosis], normaliser: str, beam: int) -> np.ndarray:
    """(seeds, users, levels) shares of each user's exact top IDs whose prefix is in the beam."""
    index = runs[0].beam(beam)
    kept = np.stack([run.of(normaliser, "retained")[:, index] for run in runs])
    sizes = np.stack([run.of(normaliser, "top_size") for run in runs])
    return kept / np.maximum(sizes, 1)[:, :, None]


def _share(hits: np.ndarray, cases: np.ndarray) -> Estimate:
    """The share of hits among cases, both (seeds, users) bool."""
    total, n = int(hits.sum()), int(cases.sum())
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0)
    if len(hits) > 1 and 0 < total < n:
        return Estimate(total / n, *_interval(hits, cases), n)
    users = int(cases.any(axis=0).sum())  # no resample of none (or all) holds another share; seeds share their users
    return Estimate(total / n, *wilson(round(total / n * users), users), n)


def _mean(values: np.ndarray) -> Estimate:
    """The mean of (seeds, users) values."""
    low, high = _interval(values, np.ones(values.shape, dtype=bool))
    return Estimate(math.fsum(values.ravel()) / values.size, low, high, values.size)


def _relative(value: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return value / reference - 1


def _of_sums(statistic: Callable[..., np.ndarray], *parts: np.ndarray) -> Estimate:
    """A statistic of the sums of (seeds, users) arrays, with the middle 95% of it over draws of seeds and users.

    All parts share their draws, and all seeds of a draw its users. A draw for which there is none is left out.
    """
    drawn = _seed_draws(len(parts[0]))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(*(np.take_along_axis(_sums(part), drawn, axis=1).sum(axis=1) for part in parts))
        value = float(statistic(*(np.float64(part.sum()) for part in parts)))
    known = values[np.isfinite(values)]
    if not len(known) or not math.isfinite(value):
        return Estimate(math.nan, math.nan, math.nan, 0)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), parts[0].size)


def _interval(top: np.ndarray, bottom: np.ndarray) -> tuple[float, float]:
    """The middle 95% of sums of `top` over sums of `bottom`, (seeds, users) each."""
    found = _of_sums(np.divide, top, bottom)
    return found.low, found.high


def _sums(values: np.ndarray) -> np.ndarray:
    """(NUM_RESAMPLES, seeds) sums over each draw of users; users with nothing but 0 need no look."""
    seeds, users = values.shape
    if (values == values[0, 0]).all():
        return np.full((NUM_RESAMPLES, seeds), values[0, 0] * users)
    kind = np.float32 if values.dtype == bool else np.float64  # float32 holds counts of users exactly
    some, counts = np.flatnonzero(values.any(axis=0)), _user_draws(users, kind)
    if 2 * len(some) < users:  # otherwise copying them takes longer than they do
        values, counts = values[:, some], counts[some]
    return (values.astype(kind) @ counts).astype(np.float64).T


@lru_cache(maxsize=4)
def _user_draws(users: int, kind: type) -> np.ndarray:
    """(users, NUM_RESAMPLES) how often each user is in each draw of as many with replacement."""
    random = np.random.default_rng(stream_seed(0, "diagnosis users"))
    counts = np.empty((NUM_RESAMPLES, users), dtype=kind)
    for row in counts:
        row[:] = np.bincount(random.integers(users, size=users), minlength=users)
    return np.ascontiguousarray(counts.T)


def _seed_draws(seeds: int) -> np.ndarray:
    """(NUM_RESAMPLES, seeds) seeds drawn with replacement."""
    random = np.random.default_rng(stream_seed(0, "diagnosis seeds"))
    return random.integers(seeds, size=(NUM_RESAMPLES, seeds))
