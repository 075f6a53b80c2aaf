"""The comparisons that a suite declares in advance, and what the records say of each: only these carry verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TypeVar

import numpy as np

from genrec_bench.analysis.classical import McNemar, mcnemar
from genrec_bench.analysis.noise import Components, components
from genrec_bench.analysis.significance import Comparison, compare_values, detectable, holm, verdict
from genrec_bench.experiments.suite_files import untested_profiles
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.rows import Family, Suite

Values = Callable[[Group, str, int], np.ndarray | None]
C = TypeVar("C", bound="Compared")
UNTESTED = untested_profiles()  # whose numbers mean nothing


@dataclass(frozen=True)
class Compared:
    """Two rows compared over users; comparison is None where they have no runs to pair.

    num_tests: how many were corrected together. p_holm: corrected within these.
    """

    comparison: Comparison | None = field(default=None, kw_only=True)
    num_tests: int = field(default=1, kw_only=True)
    p_holm: float = field(default=1.0, kw_only=True)

    @property
    def verdict(self) -> str | None:
        """"better", "worse", or None where no difference was detected: test and interval have to agree."""
        return verdict(self.comparison, self.p_holm)

    @property
    def detectable(self) -> float:
        """The true difference that gets a verdict among all of these in about 4 of 5 cases."""
        return detectable(self.comparison, self.num_tests)


def corrected(family: Sequence[C]) -> list[C]:
    """Comparisons with Holm's correction over all of them, in order."""
    adjusted = holm([one.comparison.p_value for one in family])
    return [replace(one, p_holm=p, num_tests=len(family)) for one, p in zip(family, adjusted, strict=True)]


@dataclass(frozen=True)
class Test(Compared):
    """One comparison of a family: a row against the named one, on one block and backbone, over the users of all seeds.

    backbone: as the labels spell it. seeds: those that both rows have. metric: name@k. hits: McNemar's exact test of
    who has the target within k, one a seed; a target that shares its place with others counts where its first place is.
    parts: of the variance of the users' differences, None for one seed.
    """

    __test__ = False  # no test of pytest's

    block: Block
    backbone: str
    group: Group
    against: Group
    seeds: tuple[int, ...] = ()
    metric: str = "ndcg@10"
    hits: tuple[McNemar, ...] = ()
    parts: Components | None = None


@dataclass(frozen=True)
class Tested:
    """A family in one profile.

    absent: (where, what) of declared comparisons that cannot be tested, and why.
    """

    __test__ = False

    family: Family
    profile: str
    tests: tuple[Test, ...]
    absent: tuple[tuple[str, str], ...]

    def of(self, outcome: str | None) -> list[Test]:
        """The tests with one verdict."""
        return [t for t in self.tests if t.verdict == outcome]


def tested(suite: Suite, blocks: Sequence[Block], values: Values) -> Iterator[Tested]:
    """Each declared family in each profile that has runs of its data, corrected by Holm within family and profile.

    values(group, metric, k): (seeds, users) values of a row, or None where its ranks are not at hand. A row with
    missing seeds is not tested.
    """
    for family in suite.families:
        for profile in sorted({b.profile for b in blocks} - set(UNTESTED)):
            inside = [b for b in blocks if b.profile == profile and b.dataset in family.datasets]
            tests, absent = [], []
            for block, backbone in product(inside, family.backbones):
                pairs, lacking = _pairs(family, block, backbone, values)
                tests += [_tested(family, block, *pair, values) for pair in pairs]
                absent += lacking
            absent += _untouched(family, inside)
            if inside:
                yield Tested(family, profile, tuple(corrected(tests)), tuple(absent))


def _untouched(family: Family, blocks: Sequence[Block]) -> Iterator[tuple[str, str]]:
    """Data sets, and backbones of data sets, without any run."""
    for dataset in family.datasets:
        there = {g.row.backbone for b in blocks if b.dataset == dataset for g in b.groups} & set(family.backbones)
        if not there:
            yield dataset, "no run"
        else:
            yield from ((dataset, f"no run on {backbone}") for backbone in family.backbones if backbone not in there)


def _pairs(family: Family, block: Block, backbone: str,
           values: Values) -> tuple[list[tuple[Group, Group]], list[tuple[str, str]]]:
    """The rows of one backbone with what they are measured by, and what is lacking; nothing without a run on it."""
    own = [g for g in block.groups if g.row.backbone == backbone]
    plain = {g.name: g for g in own if g.label == g.row.label}
    plain |= {g.row.baseline: g for g in block.groups if g.row.baseline is not None}
    pairs, lacking = [], []
    for name in family.rows if own else ():
        sides = [plain.get(name), plain.get(family.against)]
        gaps = [gap for n, g in zip((name, family.against), sides, strict=True)
                if (gap := _gap(n, g, block, family, values))]
        if gaps:
            lacking.append((f"{block.dataset}, {own[0].row.spelling}", " and ".join(gaps)))
        else:
            pairs.append((sides[0], sides[1]))
    return pairs, lacking


def _gap(name: str, group: Group | None, block: Block, family: Family, values: Values) -> str:
    """Why a row cannot be tested, or ""."""
    if group is None:
        return f"{name} not run"
    if block.missing(group):
        return f"{group.name} lacks seeds {', '.join(map(str, block.missing(group)))}"
    ranked = values(group, family.measure, family.k)
    if ranked is None:
        return f"{group.name} without ranks"
    return "" if ranked.shape[1] > 1 else f"{group.name} with one test user, who allows no test"


def _tested(family: Family, block: Block, group: Group, against: Group, values: Values) -> Test:
    (a, b), hits = ([values(g, metric, family.k) for g in (group, against)] for metric in (family.measure, "recall"))
    found = tuple(mcnemar(one > 0, other > 0) for one, other in zip(*np.broadcast_arrays(*hits), strict=True))
    seeds = next((g.seeds for g in (group, against) if g.row.seeded), ())
    return Test(block, group.row.spelling, group, against, seeds, family.metric, found,
                components(a - b) if len(a) > 1 else None, comparison=compare_values(a, b))
