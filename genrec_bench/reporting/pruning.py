"""What beam search throws away: the tables of a report, from the diagnoses beside the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from genrec_bench.analysis import pruning
from genrec_bench.analysis.pruning import Estimate, GainSplit
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.rows import Row, Suite, objective_of
from genrec_bench.reporting.tables import DASH, MARK, by_family, listed, number
from genrec_bench.results.diagnoses import Diagnosis

BEAM = 20
TOPS = (20, 10, 5)
GAIN = ("ndcg", 10)
CAUSES = (10, (5, 10))  # the beam, and the K, of the table of causes
OWN, OTHER = "own", "other"  # names of the normaliser that a run decodes with and of the one it does not
CHOICES = ("metric", "k", "beam", "reading", "vocabulary")
Cell = Callable[["Diagnosed"], str]
CSV_HEADER = ("block", "method", "quantity", "normaliser", *CHOICES, "part", "value", "low", "high", "n", "seeds")


@dataclass(frozen=True, eq=False)
class Diagnosed:
    """A row with the diagnoses of its seeds, in order of seeds. most: seeds that some row of the block has.

    normaliser: what the runs themselves decode with; in `runs` its facts are named OWN and the other one's OTHER, so
    that rows which decode differently can be compared.
    """

    group: Group
    seeds: tuple[int, ...]
    most: int
    normaliser: str
    runs: tuple[Diagnosis, ...]
    known: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)

    @property
    def row(self) -> Row:
        """The suite's row."""
        return self.group.row

    @property
    def name(self) -> str:
        """The label without the backbone, with n where seeds are missing."""
        return self.group.name if len(self.seeds) == self.most else f"{self.group.name} (n = {len(self.seeds)})"

    def of_seeds(self, seeds: Iterable[int]) -> list[Diagnosis]:
        """The diagnoses of some seeds, in that order."""
        return [self.runs[self.seeds.index(seed)] for seed in seeds]

    def estimate(self, quantity: Callable[..., Any], normaliser: str = OWN, **choice: Any) -> Any:
        """A quantity of `analysis.pruning` over all seeds, computed once."""
        key = quantity.__name__, normaliser, *sorted(choice.items())
        if key not in self.known:
            self.known[key] = quantity(self.runs, normaliser, **choice)
        return self.known[key]

    def catalogue(self, key: str) -> float:
        """A count of the catalogue, or mean where seeds have semantic IDs of their own."""
        return fmean(run.about["catalogue"][key] for run in self.runs)

    def beam_positions(self, beam: int) -> float:
        """Prefixes that a beam search of this width reads for one user, the empty one included."""
        return fmean(pruning.beam_positions(run, beam) for run in self.runs)


@dataclass(frozen=True)
class Searched:
    """The rows of a block that have diagnoses of one sample, in the block's order. others: labels of those left out."""

    block: Block
    rows: tuple[Diagnosed, ...]
    others: tuple[str, ...]

    @property
    def about(self) -> Mapping[str, Any]:
        """What the file says that all rows share: sample, beams, cap, levels."""
        return self.rows[0].runs[0].about

    @property
    def beams(self) -> tuple[int, ...]:
        """The widths, ascending."""
        return self.rows[0].runs[0].beams

    def families(self) -> dict[str, list[Diagnosed]]:
        """The rows under their backbones, in order."""
        places = {id(row.group): row for row in self.rows}
        found = {family: [places[id(g)] for g in groups if id(g) in places]
                 for family, groups in self.block.families().items()}
        return {family: rows for family, rows in found.items() if rows}

    def reference(self, family: str) -> Diagnosed | None:
        """Cross-entropy of a backbone, where it is diagnosed."""
        group = self.block.cross_entropy(family)
        return next((r for r in self.rows if r.group is group), None)

    def principal(self, family: str) -> list[Diagnosed]:
        """The first row of each form of objectives and stages; variants, sweeps and readings stand after it."""
        first: dict[tuple[Any, ...], Diagnosed] = {}
        for row in self.families().get(family, ()):
            first.setdefault((row.row.stages, objective_of(row.row)), row)
        return list(first.values())

    def named(self, family: str, *names: str) -> list[Diagnosed]:
        """The principal rows of one stage with these objectives, by the names that colours go by."""
        return [r for r in self.principal(family) if len(r.row.stages) == 1 and objective_of(r.row) in names]


def searched(block: Block, diagnoses: Mapping[str, Diagnosis]) -> Searched | None:
    """The block's rows with their diagnoses, all of the sample that most runs have; None where there are none."""
    shared = Counter(_shared(diagnoses[r.run_id]) for g in block.groups for r in g.records if r.run_id in diagnoses)
    if not shared:
        return None
    most = max(shared, key=lambda key: (shared[key], key))
    fitting = [(g, [r for r in g.records if r.run_id in diagnoses and _shared(diagnoses[r.run_id]) == most])
               for g in block.groups]
    num_seeds = max(len(records) for _, records in fitting)
    rows = []
    for group, records in fitting:
        if records:
            own = diagnoses[records[0].run_id].about["decoding"]["normaliser"]
            rows.append(Diagnosed(group, tuple(r.seed for r in records), num_seeds, own,
                                  tuple(_by_role(diagnoses[r.run_id], own) for r in records)))
    others = [g.label for g, records in fitting if len(records) < sum(r.run_id in diagnoses for r in g.records)]
    return Searched(block, tuple(rows), tuple(others))


def _shared(diagnosis: Diagnosis) -> tuple[Any, ...]:
    """What diagnoses must have in common to stand in one table."""
    about = diagnosis.about
    return (about["sample"]["users"], about["sample"]["sha256"], diagnosis.beams, about["top"], about["cap"],
            diagnosis.levels)


def _by_role(run: Diagnosis, own: str) -> Diagnosis:
    """The same facts with the normalisers named by what they are to the run."""
    roles = {own: OWN, **{n: OTHER for n in run.about["normalisers"] if n != own}}
    arrays = {}
    for name, array in run.arrays.items():
        head, _, tail = name.partition("/")
        arrays[f"{roles[head]}/{tail}" if head in roles else name] = array
    return Diagnosis({**run.about, "normalisers": [roles[n] for n in run.about["normalisers"]]}, arrays)


def section(suite: Suite, blocks: Sequence[Block], found: Sequence[Searched | None]) -> str:
    """How to read it and the tables of all blocks; one line says what makes the diagnoses where there are none."""
    absent = [b.name for b, one in zip(blocks, found, strict=True) if not one and any(g.row.backbone for g in b.groups)]
    return render("pruning", suite=suite.name, blocks=[facts(one) for one in found if one], absent=absent)


def rate(found: Searched | None, group: Group) -> str:
    """The pruning rate of a row at beam and K of 20 as a cell, "" where it is not diagnosed."""
    row = next((r for r in found.rows if r.group is group), None) if found and BEAM in found.beams else None
    return percent(row.estimate(pruning.pruning_rate, k=BEAM, beam=BEAM)) if row else ""


def gain(found: Searched, row: Diagnosed, normaliser: str = OWN) -> GainSplit | None:
    """A row's gain over its backbone's cross-entropy and its two parts, over the seeds that both have, or None."""
    reference = next(found.reference(family) for family, rows in found.families().items() if row in rows)
    seeds = [s for s in row.seeds if reference and s in reference.seeds]
    if reference is None or row is reference or not seeds or BEAM not in found.beams:
        return None
    key = "gain", normaliser, ("beam", BEAM), ("k", GAIN[1]), ("metric", GAIN[0])
    if key not in row.known:
        row.known[key] = pruning.gain_split(row.of_seeds(seeds), reference.of_seeds(seeds), normaliser,
                                            metric=GAIN[0], k=GAIN[1], beam=BEAM)
    return row.known[key]


def csv_rows(found: Searched) -> list[list[Any]]:
    """Everything that was estimated so far, a line each, in the order of CSV_HEADER."""
    lines = []
    for row in found.rows:
        for (quantity, normaliser, *choice), value in row.known.items():
            parts = vars(value) if isinstance(value, GainSplit) else {"": value}
            if isinstance(value, list):
                parts = {f"level {m}": e for m, e in enumerate(value, 1)}
            lines += [[found.block.name, row.group.label, quantity, normaliser, *(dict(choice).get(c) for c in CHOICES),
                       part, *(round(v, 6) if e.n else None for v in (e.value, e.low, e.high)), e.n, len(row.seeds)]
                      for part, e in parts.items()]
    return lines


def percent(e: Estimate) -> str:
    """`12.3 % [10.1, 14.5]`, or a dash where nothing was counted."""
    return DASH if not e.n else f"{100 * e.value:.1f} % [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def signed(e: Estimate) -> str:
    """`+0.0012 [-0.0003, +0.0027]`."""
    return f"{e.value:+.4f} [{e.low:+.4f}, {e.high:+.4f}]"


def plain(e: Estimate, digits: int = 4) -> str:
    """`0.0412 [0.0390, 0.0434]`."""
    return f"{e.value:,.{digits}f} [{e.low:,.{digits}f}, {e.high:,.{digits}f}]"


def facts(found: Searched) -> dict[str, Any]:
    """What the template shows of a block: who was looked at, and its tables; those that need a beam of 20 or 10 are ""
    without it."""
    levels, beams, top = range(1, found.about["levels"] + 1), found.beams, found.about["top"]
    (cause, tops), (metric, k) = CAUSES, GAIN

    def by_level(name: str, quantity: Callable[..., Any], **choice: Any) -> str:
        return _table(found, {f"{name} {m}": lambda row, m=m: plain(row.estimate(quantity, **choice)[m - 1], 3)
                              for m in levels}, BEAM)

    def lost(k: int, beam: int, normaliser: str = OWN) -> Cell:
        return lambda row: percent(row.estimate(pruning.pruning_rate, normaliser, k=k, beam=beam))

    def gains(normaliser: str) -> dict[str, Cell]:
        return {title: lambda row, part=part: signed(getattr(split, part)) if (
            split := gain(found, row, normaliser)) else DASH
            for title, part in (("Gain", "total"), ("Scoring", "scoring"), ("Pruning", "pruning"))}

    return {
        "name": found.block.name, "about": found.about, "others": found.others, "beam": BEAM, "mark": MARK,
        "cause_beam": cause,
        "missing": [g.label for g in found.block.groups if g.row.backbone and g.label not in found.others
                    and not any(g is r.group for r in found.rows)],
        "fewer": [r.group.label for r in found.rows if len(r.seeds) < r.most],
        "lost": [(k, _table(found, {
            "Targets": lambda row, k=k, wide=wide: number(row.estimate(pruning.pruning_rate, k=k, beam=wide[0]).n),
            **{f"Beam {b}": lost(k, b) for b in wide}})) for k in TOPS if (wide := [b for b in beams if b >= k])],
        "gain": _table(found, {
            "Full sorting": lambda row: plain(row.estimate(pruning.full_metric, metric=metric, k=k)),
            f"Beam {BEAM}": lambda row: plain(row.estimate(pruning.beam_metric, metric=metric, k=k, beam=BEAM)),
            **gains(OWN)}, BEAM),
        "survival": by_level("Level", pruning.prefix_recall, reading="survival", beam=BEAM),
        "ranked": by_level("Level", pruning.prefix_recall, reading="rank", k=BEAM),
        "retained": by_level("Step", pruning.retention, beam=BEAM),
        "causes": _table(found, {title: cell for k in tops for title, cell in {
            f"Lost of top {k}": lambda row, k=k: number(_share(row, k, "flat").n),
            f"K = {k}, whole": lambda row, k=k: percent(_share(row, k, "flat")),
            f"K = {k}, valid": lambda row, k=k: percent(_share(row, k, "trie"))}.items()}, cause),
        "cost": _table(found, {
            **{f"Beam {b}": lambda row, b=b: number(row.beam_positions(b)) for b in beams},
            f"Exact top {top}": lambda row: plain(row.estimate(pruning.needed), 0),
            "All prefixes": lambda row: number(row.catalogue("nodes")),
            "Item by item": lambda row: number(row.catalogue("ids") * found.about["levels"])}),
        "otherwise": _table(found, {
            "Run with": lambda row: row.normaliser, f"PR@{BEAM}, beam {BEAM}": lost(BEAM, BEAM, OTHER),
            **({f"PR@{k}, beam {cause}": lost(k, cause, OTHER)} if cause in beams else {}), **gains(OTHER)}, BEAM)}


def _share(row: Diagnosed, k: int, vocabulary: str) -> Estimate:
    return row.estimate(pruning.violation_share, k=k, beam=CAUSES[0], vocabulary=vocabulary)


def _table(found: Searched, columns: Mapping[str, Cell], beam: int | None = None) -> str:
    """A pipe table of all rows, or one for each backbone; "" where the beam that it needs was not searched."""
    if beam is not None and beam not in found.beams:
        return ""
    rows = {id(row.group): row for row in found.rows}

    cells = {"Method": lambda row: row.group.label, "n": _seeds, **columns}
    return by_family(found.block, [row.group for row in found.rows], lambda groups: listed(
        (rows[id(g)] for g in groups), cells))


def _seeds(row: Diagnosed) -> str:
    n = len(row.seeds)
    return str(n) if n == row.most else f"{n} of {row.most} {MARK}"
