"""A comparison of two rows, and those that a suite declares in advance with what the records say of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from genrec_bench.analysis.classical import McNemar, mcnemar
from genrec_bench.analysis.noise import Components, components
from genrec_bench.analysis.significance import Comparison, compare_values, detectable, holm, verdict
from genrec_bench.experiments.suite_files import untested_profiles
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.rows import Family, Suite

Values = Callable[[Group, str, int], np.ndarray | None]
UNTESTED = untested_profiles()  # whose numbers mean nothing


@dataclass(frozen=True)
class Test:
    """A row against another over the users of the seeds that both have; comparison is None where they share none.

    block: of a suite's family, else None. metric: name@k. recall: at k, of both. hits: McNemar's exact test of who has
    the target within k, one a seed; a target that shares its place with others counts where its first place is. parts:
    of the variance of the users' differences, None for one seed. left: seeds of both that the other side lacks.
    declared: it carries a verdict; num_tests: how many of these were corrected together, of num_declared that are to
    be. p_holm: corrected within them.
    """

    __test__ = False  # no test of pytest's

    group: Group
    against: Group
    block: Block | None = None
    metric: str = "ndcg@10"
    comparison: Comparison | None = None
    recall: tuple[float, float] = (0.0, 0.0)
    hits: tuple[McNemar, ...] = ()
    parts: Components | None = None
    left: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    declared: bool = True
    num_tests: int = 1
    num_declared: int = 1
    p_holm: float = 1.0

    @property
    def backbone(self) -> str:
        """As the labels spell it."""
        return self.group.row.spelling

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that are compared: of the row, or where it is not seeded of the other."""
        sides = zip((self.group, self.against), self.left, strict=True)
        return next((tuple(s for s in g.seeds if s not in left) for g, left in sides if g.seeded), ())

    @property
    def whole(self) -> bool:
        """Whether both rows stand with the seeds that they have."""
        return all(map(self.block.stands, (self.group, self.against)))

    @cached_property
    def compared(self) -> tuple[Group, Group]:
        """Both sides with the runs that are compared: a single one where nothing is random."""
        return tuple(g if g.seeded and not left else
                     replace(g, runs=g.runs[~g.runs["seed"].isin(left)] if g.seeded else g.runs[:1])
                     for g, left in zip((self.group, self.against), self.left, strict=True))

    @property
    def empty(self) -> bool:
        """Whether a side has no run that the other one can stand beside."""
        return not all(len(g.runs) for g in self.compared)

    @property
    def verdict(self) -> str | None:
        """"better", "worse", or None where no difference was detected: test and interval have to agree."""
        return verdict(self.comparison, self.p_holm)

    @property
    def detectable(self) -> float:
        """The true difference that gets a verdict among all of these in about 4 of 5 cases."""
        return detectable(self.comparison, self.num_tests)

    def measured(self, values: Values, **draws: int) -> Test:
        """The same with what the users say. values(group, metric, k): (seeds, users). draws: of `compare_values`."""
        name, _, k = self.metric.partition("@")
        (a, b), hits = ([values(g, m, int(k)) for g in self.compared] for m in (name, "recall"))
        a = np.repeat(a, len(b), axis=0) if len(a) == 1 else a
        found = tuple(mcnemar(one > 0, other > 0) for one, other in zip(*np.broadcast_arrays(*hits), strict=True))
        return replace(self, comparison=compare_values(a, b, **draws), hits=found,
                       parts=components(a - b) if min(a.shape) > 1 else None,
                       recall=(float(hits[0].mean()), float(hits[1].mean())))


def corrected(family: Sequence[Test], num_declared: int = 0) -> list[Test]:
    """Comparisons with Holm's correction over all of them, in order. num_declared: with those not made yet."""
    adjusted, made = holm([one.comparison.p_value for one in family]), len(family)
    return [replace(one, p_holm=p, num_tests=made, num_declared=num_declared or made)
            for one, p in zip(family, adjusted, strict=True)]


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

    values(group, metric, k): (seeds, users) values of a row, or None where its ranks are not at hand. Rows with unlike
    seeds are tested on those that both have.
    """
    for family in suite.families:
        for profile in sorted({b.profile for b in blocks} - set(UNTESTED)):
            inside = [b for b in blocks if b.profile == profile and b.dataset in family.datasets]
            found = [one for block, backbone in product(inside, family.backbones)
                     for one in _declared(family, block, backbone, values)]
            if inside:
                made = corrected([t for t in found if isinstance(t, Test)], family.size)
                yield Tested(family, profile, tuple(made), (
                    *(one for one in found if not isinstance(one, Test)), *_untouched(family, inside)))


def _untouched(family: Family, blocks: Sequence[Block]) -> Iterator[tuple[str, str]]:
    """Data sets, and backbones of data sets, without any run."""
    for dataset in family.datasets:
        there = {g.row.backbone for b in blocks if b.dataset == dataset for g in b.groups} & set(family.backbones)
        if not there:
            yield dataset, "no run"
        else:
            yield from ((dataset, f"no run on {backbone}") for backbone in family.backbones if backbone not in there)


def _declared(family: Family, block: Block, backbone: str, values: Values) -> Iterator[Test | tuple[str, str]]:
    """The comparisons on one backbone, or where and what is lacking; nothing without a run on it."""
    own = [g for g in block.groups if g.row.backbone == backbone]
    plain = {g.name: g for g in own if g.label == g.row.label}
    plain |= {g.row.baseline: g for g in block.groups if g.row.baseline is not None}
    for name in family.rows if own else ():
        found = _test(block, family, plain, name, values)
        yield found.measured(values) if isinstance(found, Test) else (f"{block.dataset}, {own[0].row.spelling}", found)


def _test(block: Block, family: Family, plain: Mapping[str, Group], name: str, values: Values) -> Test | str:
    """A comparison that can be made, or why it cannot."""
    group, against = plain.get(name), plain.get(family.against)
    if group is None or against is None:
        return " and ".join(f"{n} not run" for n in (name, family.against) if n not in plain)
    found = paired(group, against)
    if found is None:
        return "no common seed"
    if len(found.seeds) == 1:
        return f"one common seed ({found.seeds[0]})"
    test = replace(found, block=block, metric=family.metric)
    return " and ".join(filter(None, (_gap(one, family, values) for one in test.compared))) or test


def paired(group: Group, against: Group) -> Test | None:
    """A row against another on the seeds that both have, not measured yet; None where they share none."""
    test = Test(group, against, left=unpaired(group, against))
    return None if test.empty else test


def unpaired(group: Group, against: Group) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The seeds of both sides that the other one lacks; none where nothing is random on one side."""
    if not (group.seeded and against.seeded):
        return (), ()
    return tuple(tuple(s for s in one.seeds if s not in other.seeds) for one, other in ((group, against),
                                                                                       (against, group)))


def _gap(group: Group, family: Family, values: Values) -> str:
    """Why a row that has runs cannot be tested, or ""."""
    ranked = values(group, family.measure, family.k)
    if ranked is None:
        return f"{group.name} without ranks"
    return "" if ranked.shape[1] > 1 else f"{group.name} with one test user, who allows no test"
