"""How large a difference has to be to mean anything: noise floor, error rate and power, from stored ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

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
from genrec_bench.reporting.families import UNTESTED, Test, Tested
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.pages import Pages
from genrec_bench.reporting.papers import Paper
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import METRIC, listed, pipe
from genrec_bench.reporting.verdicts import VARIANCES, answer_of, csv_line, paper_gain, percent

SEEDS = (1, 2, 3, 5, 10, 20, math.inf)  # of the table of detectable differences
TIMES = (1, 2, 4.5)  # the users there are; Beauty's 22,363 are 4.6 times Office's 4,905
POWER_HEADER = ("family", "profile", "block", "backbone", "method", "against", "metric", "seeds", "users",
                "mean_against", "difference", "low", "high", "minimum_detectable", "detectable", *VARIANCES,
                "paper_gain", "answer")
NOISE_HEADER = ("block", "method", "seeds", "users", "mean", "sd_over_seeds", "splits", "seeds_a_half", "aa_sd",
                "aa_middle_95", "aa_largest", "aa_verdicts", "null_studies", "null_p_at_most_0.05", "null_verdicts",
                "floor_seeds", "floor_sd", "floor_half_width_95")

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


def section(material: ReportData, pages: Pages, folder: str) -> str:
    """What declared comparisons could show, then noise and power block by block; "" without ranks of networks."""
    blocks = [b for b in material.blocks if b.profile not in UNTESTED]
    plain = {b.name: _plain(material, b) for b in blocks}
    tests = [(one, t) for one in material.families for t in one.tests]
    if not tests and not any(plain.values()):
        return ""
    if tests:
        pages.table(f"{folder}/tables/power.csv", POWER_HEADER, (_csv(one, t, material.paper) for one, t in tests))
    floors, found = [], []
    for block in blocks:
        noises = [_noise(block, group, values) for group, values in _enough(plain[block.name])]
        if noises:
            drawn = curves(material, block)
            floors.append({"name": block.name, "table": _noise_table(noises), "power": _power_table(drawn),
                           "users": drawn[0].users if drawn else 0,
                           "least": [(one.family, one.percent(math.inf)) for one in drawn]})
        found += noises
    if found:
        pages.table(f"{folder}/tables/noise.csv", NOISE_HEADER, map(_noise_csv, found))
    return render("power", comparisons=_comparisons([t for _, t in tests]) if tests else "", floors=floors,
                  few=_too_few(blocks, plain), least=MIN_SEEDS, most_splits=MOST_SPLITS, flips=SPLIT_DRAWS,
                  study_flips=STUDY_DRAWS)


def curves(material: ReportData, block: Block) -> list[Curve]:
    """The curve of each backbone of a block with enough seeds of cross-entropy and a tested comparison with it."""
    found = []
    for group, _ in _enough(_plain(material, block)):
        tests = [t for one in material.families for t in one.tests if t.block.name == block.name and t.whole
                 and not any(t.left) and t.against.label == group.label and t.metric == METRIC and t.parts
                 and t.comparison.mean_b]
        if tests:
            gains = (paper_gain(t, material.paper) for t in tests)
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


def _too_few(blocks: Sequence[Block], plain: dict[str, list[tuple[Group, np.ndarray]]]) -> list[tuple[str, str, int]]:
    """The rows with too few seeds for a noise floor: block, label, seeds."""
    return [(b.name, g.label, len(values)) for b in blocks for g, values in plain[b.name] if len(values) < MIN_SEEDS]


def _comparisons(tests: Sequence[Test]) -> str:
    def per_cent(size: Callable[[Test], float | None]) -> Callable[[Test], str]:
        return lambda t: percent(size(t), t.comparison.mean_b)

    return listed(tests, {
        "Data": lambda t: t.block.name, "Comparison": lambda t: f"{t.group.label} over {t.against.name}",
        "n": lambda t: str(t.comparison.n_seeds), "Users": lambda t: f"{t.comparison.n_users:,}",
        "MDD, %": per_cent(lambda t: t.comparison.minimum_detectable),
        "Detectable, %": per_cent(lambda t: t.detectable),
        "Any seeds, %": per_cent(lambda t: t.parts and t.parts.detectable(math.inf, t.comparison.n_users))}, 2)


def _noise_table(noises: Sequence[Noise]) -> str:
    """A column a backbone, as the words are longer than the numbers."""
    def share(count: str) -> Callable[[Noise], str]:
        return lambda one: "{:.1f} ± {:.1f} % of {}".format(
            *(100 * part for part in one.nulls.share(getattr(one.nulls, count))), one.nulls.studies)

    rows: dict[str, Callable[[Noise], str]] = {
        "Seeds": lambda one: str(one.aa.n_seeds), "Mean": lambda one: f"{one.aa.mean:.4f}",
        "Standard deviation over seeds": lambda one: _both(one.aa.seed_sd, one.aa.mean),
        "A/A: splits, seeds a half": lambda one: f"{len(one.aa.differences)}, {one.aa.size}",
        "A/A: standard deviation of the differences": lambda one: _both(one.aa.sd, one.aa.mean),
        f"A/A: {LEVEL:.0%} of them within ±": lambda one: _both(one.aa.middle, one.aa.mean),
        "A/A: the largest": lambda one: _both(one.aa.largest, one.aa.mean),
        f"A/A: verdicts (p ≤ {ALPHA}, uncorrected)": lambda one: f"{one.aa.verdicts} of {len(one.aa.differences)}",
        f"Simulated studies of no difference: p ≤ {ALPHA}": share("significant"),
        "Simulated studies of no difference: verdicts": share("verdicts"),
        f"**Noise floor**: SD of a difference with n = {noises[0].seeds} seeds each":
            lambda one: _both(one.aa.floor(one.seeds), one.aa.mean),
        f"**Noise floor**: {LEVEL:.0%} prediction interval of such a difference, ±":
            lambda one: _both(one.aa.half_width(one.seeds), one.aa.mean)}
    return pipe(["", *(one.group.label for one in noises)], [[name, *map(cell, noises)] for name, cell in rows.items()])


def _both(value: float, mean: float) -> str:
    return f"{value:.4f} ({percent(value, mean)} %)"


def _power_table(found: Sequence[Curve]) -> str:
    """The minimum detectable difference by seeds and users; "" without a curve."""
    header = ["Backbone", "Users", *("any number" if n == math.inf else f"{n} seed{'s' * (n > 1)}" for n in SEEDS)]
    rows = [[one.family, f"{round(times * one.users):,}" + f" ({times:g}×)" * (times != 1),
             *(f"{one.percent(n, times):.1f}" for n in SEEDS)] for one in found for times in TIMES]
    return pipe(header, rows, numeric_from=1) if rows else ""


def _csv(one: Tested, t: Test, paper: Paper | None) -> list:
    gain = paper_gain(t, paper)
    return csv_line(POWER_HEADER, t, family=one.family.name, profile=one.profile, paper_gain=gain,
                    answer=answer_of(t, gain))


def _noise_csv(one: Noise) -> list:
    aa, nulls = one.aa, one.nulls
    return [one.block.name, one.group.label, " ".join(map(str, one.group.seeds)), one.users, aa.mean, aa.seed_sd,
            len(aa.differences), aa.size, aa.sd, aa.middle, aa.largest, aa.verdicts, nulls.studies, nulls.significant,
            nulls.verdicts, one.seeds, aa.floor(one.seeds), aa.half_width(one.seeds)]
