"""How large a difference has to be to mean anything: noise floor, error rate and power, from stored ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genrec_bench.analysis.claims import answer
from genrec_bench.analysis.noise import (
    MIN_SEEDS,
    MOST_SPLITS,
    SPLIT_DRAWS,
    STUDY_DRAWS,
    Components,
    Nulls,
    SelfComparison,
    pooled,
    self_comparison,
    simulated_nulls,
)
from genrec_bench.analysis.significance import ALPHA, LEVEL
from genrec_bench.reporting.answer import METRIC
from genrec_bench.reporting.families import UNTESTED, Test, Tested
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.pages import Pages
from genrec_bench.reporting.papers import Paper
from genrec_bench.reporting.printed import printed_gain
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import DASH, pipe

SEEDS = (1, 2, 3, 5, 10, 20, math.inf)  # of the table of detectable differences
TIMES = (1, 2, 4.5)  # the users there are; Beauty's 22,363 are 4.6 times Office's 4,905
POWER_HEADER = ("family", "profile", "block", "backbone", "method", "against", "metric", "seeds", "users",
                "mean_against", "difference", "low", "high", "minimum_detectable", "detectable", "variance_users",
                "variance_noise", "variance_seeds", "paper_gain", "answer")
NOISE_HEADER = ("block", "method", "seeds", "users", "mean", "sd_over_seeds", "splits", "seeds_a_half", "aa_sd",
                "aa_middle_95", "aa_largest", "aa_verdicts", "null_studies", "null_p_at_most_0.05", "null_verdicts",
                "floor_seeds", "floor_sd", "floor_half_width_95")

INTRODUCTION = (
    "How large a difference has to be before it means anything, in NDCG@10 and in per cent of the mean of the row that "
    "is compared with. What the words mean and how it is computed: `docs/statistics.md`.")
READING = (
    "MDD: the true difference that an uncorrected two-sided 5 % test over these users and seeds finds in 80 % of "
    "cases; detectable: the same for a verdict, which is corrected and needs an interval over seeds too; any seeds: "
    "the MDD that is left however many seeds there are, 0.0 where these show no such part. Answer, where the paper "
    "prints a gain c: *seen*: the interval is above 0 and reaches c/2; *smaller than claimed*: above 0, below c/2; "
    "*not seen*: not above 0, below c/2; else *cannot tell*. Intervals are not corrected, and no answer is a verdict. "
    "Unrounded: [tables/power.csv](tables/power.csv).")
READING_NOISE = (
    "A/A: all seeds of one row in two halves, compared like two methods, for all splits (of more than "
    f"{MOST_SPLITS} so many), with {SPLIT_DRAWS:,} flips and resamples. Splits share seeds, so that their verdicts are "
    f"no error rate. Simulated studies swap halves user by user and seed by seed ({STUDY_DRAWS:,} flips and "
    "resamples); ± standard error. Unrounded: [tables/noise.csv](tables/noise.csv).")


@dataclass(frozen=True)
class Curve:
    """Detectable differences on a backbone: the mean of the parts of its declared comparisons with cross-entropy.

    mean: of cross-entropy. users: of the data. gains: those that the paper prints for these comparisons.
    """

    family: str
    parts: Components
    mean: float
    users: int
    gains: tuple[float, ...]

    def percent(self, seeds: float, times: float = 1.0) -> float:
        """The minimum detectable difference with so many seeds and `times` the users, in per cent of the mean."""
        return 100.0 * self.parts.detectable(seeds, round(times * self.users)) / self.mean


@dataclass(frozen=True, eq=False)
class Noise:
    """Cross-entropy of a block against itself. seeds: of the profile's comparisons, which the floor is given for."""

    block: Block
    group: Group
    users: int
    aa: SelfComparison
    nulls: Nulls
    seeds: int


def section(material: ReportData, pages: Pages, folder: str) -> list[str]:
    """What declared comparisons could show, then noise and power block by block; [] without ranks of networks."""
    blocks = [b for b in material.blocks if b.profile not in UNTESTED]
    plain = {b.name: _plain(material, b) for b in blocks}
    tests = [(one, t) for one in material.families for t in one.tests]
    if not tests and not any(plain.values()):
        return []
    parts = ["## Noise and power", INTRODUCTION]
    if tests:
        pages.table(f"{folder}/tables/power.csv", POWER_HEADER, (_csv(one, t, material.paper) for one, t in tests))
        parts += ["### What the declared comparisons could show", _comparisons([t for _, t in tests], material.paper),
                  READING]
    found = []
    for block in blocks:
        noises = [_noise(block, group, values) for group, values in _enough(plain[block.name])]
        if noises:
            parts += [f"### {block.name}: noise floor", _noise_table(noises), *_power_table(curves(material, block))]
        found += noises
    if found:
        pages.table(f"{folder}/tables/noise.csv", NOISE_HEADER, map(_noise_csv, found))
        parts.append(READING_NOISE)
    return [*parts, _too_few(blocks, plain)]


def curves(material: ReportData, block: Block) -> list[Curve]:
    """The curve of each backbone of a block with enough seeds of cross-entropy and a tested comparison with it."""
    found = []
    for group, _ in _enough(_plain(material, block)):
        tests = [t for one in material.families for t in one.tests if t.block.name == block.name
                 and t.against.label == group.label and t.metric == METRIC and t.parts and t.comparison.mean_b]
        if tests:
            gains = (_gain(t, material.paper) for t in tests)
            found.append(Curve(group.row.spelling, pooled([t.parts for t in tests]), tests[0].comparison.mean_b,
                               tests[0].comparison.n_users, tuple(gain for gain in gains if gain)))
    return found


def _plain(material: ReportData, block: Block) -> list[tuple[Group, np.ndarray]]:
    """Cross-entropy on each backbone with all its seeds and its (seeds, users) values; without ranks none."""
    groups = [block.with_extra(g) for f in block.families() if (g := block.cross_entropy(f))]
    return [(g, values) for g in groups if (values := material.values(g)) is not None]


def _enough(plain: Sequence[tuple[Group, np.ndarray]]) -> list[tuple[Group, np.ndarray]]:
    return [(group, values) for group, values in plain if len(values) >= MIN_SEEDS]


def _noise(block: Block, group: Group, values: np.ndarray) -> Noise:
    return Noise(block, group, values.shape[1], self_comparison(values), simulated_nulls(values), len(block.seeds))


def _too_few(blocks: Sequence[Block], plain: dict[str, list[tuple[Group, np.ndarray]]]) -> str:
    """Which rows have too few seeds for a noise floor, or ""."""
    few = [f"{b.name}, {g.label}: {len(values)}" for b in blocks for g, values in plain[b.name]
           if len(values) < MIN_SEEDS]
    return f"Too few seeds for a noise floor, which needs {MIN_SEEDS}: {'; '.join(few)}." if few else ""


def _gain(t: Test, paper: Paper | None) -> float | None:
    """The gain that the paper prints for a comparison, as a part of the reference."""
    return printed_gain(t.block.dataset, t.group.row, t.against.row, t.metric, paper) if paper else None


def _answer(t: Test, gain: float | None) -> str | None:
    """What our interval says of the paper's gain; None without one."""
    mean = t.comparison.mean_b
    return answer(*(end / mean for end in t.comparison.interval), gain) if gain and mean else None


def _percent(value: float | None, mean: float, sign: str = "") -> str:
    return DASH if value is None or not mean else f"{100.0 * value / mean:{sign}.1f}"


def _comparisons(tests: Sequence[Test], paper: Paper | None) -> str:
    header = ["Data", "Method", "Against", "n", "Users", f"Difference, % [{LEVEL:.0%}]", "MDD, %", "Detectable, %",
              "Any seeds, %", "Paper's gain, %", "Answer"]
    rows = []
    for t in tests:
        c, gain = t.comparison, _gain(t, paper)
        gap, low, high = (_percent(value, c.mean_b, "+") for value in (c.difference, *c.interval))
        rows.append([t.block.name, t.group.label, t.against.label, str(c.n_seeds), f"{c.n_users:,}",
                     f"{gap} [{low}, {high}]", _percent(c.minimum_detectable, c.mean_b),
                     _percent(t.detectable, c.mean_b),
                     _percent(t.parts and t.parts.detectable(math.inf, c.n_users), c.mean_b),
                     _percent(gain, 1.0, "+"), _answer(t, gain) or DASH])
    return pipe(header, rows, numeric_from=3)


def _noise_table(noises: Sequence[Noise]) -> str:
    """A column a backbone, as the words are longer than the numbers."""
    names = ["Seeds", "Mean", "Standard deviation over seeds", "A/A: splits, seeds a half",
             "A/A: standard deviation of the differences", f"A/A: {LEVEL:.0%} of them within ±", "A/A: the largest",
             f"A/A: verdicts (p ≤ {ALPHA}, uncorrected)", f"Simulated studies of no difference: p ≤ {ALPHA}",
             "Simulated studies of no difference: verdicts",
             f"**Noise floor**: SD of a difference with n = {noises[0].seeds} seeds each",
             f"**Noise floor**: {LEVEL:.0%} of such differences within ±"]
    return pipe(["", *(one.group.label for one in noises)], zip(names, *map(_noise_cells, noises), strict=True))


def _noise_cells(one: Noise) -> Iterator[str]:
    aa, nulls = one.aa, one.nulls
    yield from (str(aa.n_seeds), f"{aa.mean:.4f}")
    yield _both(aa.seed_sd, aa.mean)
    yield f"{len(aa.differences)}, {aa.size}"
    yield from (_both(value, aa.mean) for value in (aa.sd, aa.middle, aa.largest))
    yield f"{aa.verdicts} of {len(aa.differences)}"
    for count in (nulls.significant, nulls.verdicts):
        share, error = nulls.share(count)
        yield f"{100 * share:.1f} ± {100 * error:.1f} % of {nulls.studies}"
    yield from (_both(value, aa.mean) for value in (aa.floor(one.seeds), aa.half_width(one.seeds)))


def _both(value: float, mean: float) -> str:
    return f"{value:.4f} ({_percent(value, mean)} %)"


def _power_table(found: Sequence[Curve]) -> list[str]:
    """The minimum detectable difference by seeds and users, and where its floor is; [] without a curve."""
    if not found:
        return []
    header = ["Backbone", "Users", *("any number" if n == math.inf else f"{n} seed{'s' * (n > 1)}" for n in SEEDS)]
    rows = [[one.family, f"{round(times * one.users):,}" + f" ({times:g}×)" * (times != 1),
             *(f"{one.percent(n, times):.1f}" for n in SEEDS)] for one in found for times in TIMES]
    floors = ", ".join(f"{one.percent(math.inf):.1f} % ({one.family})" for one in found)
    return ["Minimum detectable difference from cross-entropy, in per cent, by seeds and users; from the parts of the "
            "variance, the mean of those of the comparisons declared here. That by which a whole seed moves all users "
            "counts here, which the MDD above leaves out:", pipe(header, rows, numeric_from=1),
            f"With any number of seeds these {found[0].users:,} users cannot show less than {floors}."]


def _csv(one: Tested, t: Test, paper: Paper | None) -> list:
    c, gain = t.comparison, _gain(t, paper)
    return [one.family.name, one.profile, t.block.name, t.backbone, t.group.label, t.against.label, t.metric,
            " ".join(map(str, t.seeds)), c.n_users, c.mean_b, c.difference, *c.interval, c.minimum_detectable,
            t.detectable, *((t.parts.users, t.parts.noise, t.parts.seeds) if t.parts else (None,) * 3), gain,
            _answer(t, gain)]


def _noise_csv(one: Noise) -> list:
    aa, nulls = one.aa, one.nulls
    return [one.block.name, one.group.label, " ".join(map(str, one.group.seeds)), one.users, aa.mean, aa.seed_sd,
            len(aa.differences), aa.size, aa.sd, aa.middle, aa.largest, aa.verdicts, nulls.studies, nulls.significant,
            nulls.verdicts, one.seeds, aa.floor(one.seeds), aa.half_width(one.seeds)]
