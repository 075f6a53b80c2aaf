"""Reports: pure functions of records, suite files and paper files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.lists import grouped
from genrec_bench.experiments import suite_files
from genrec_bench.experiments.file_forms import PAGES
from genrec_bench.reporting import claims, cost, printed_tables, suite_page, training_free, trials
from genrec_bench.reporting.figures.base import Plate, plates, status
from genrec_bench.reporting.index import index
from genrec_bench.reporting.matching import dataset_title, other_runs, unregistered
from genrec_bench.reporting.pages import OWNED, Drawn, Pages, drawing, place
from genrec_bench.reporting.papers import Paper, load_paper, paper_names
from genrec_bench.reporting.printed import ENOUGH, FEWEST, NOT_RUN
from genrec_bench.reporting.printed_tables import PrintedTable
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Suite, load_suite, with_baselines
from genrec_bench.reporting.tables import METRIC, listed, title_of
from genrec_bench.results.records import RunRecord

TRIALS = "trials.md"  # in a suite's folder, where trials were made
PAPERS = "papers"  # folder of the papers' tables
PAPER_FILES = ("table-*.csv", "table-*.tex", "table-*.md")


@dataclass(frozen=True)
class Source:
    """What reports are made from. results: the folder of the records, for ranks, diagnoses and what else lies beside
    them; without it nothing is tested. suites: where suite files lie. jobs: processes that draw. drawn: False leaves
    out all pictures. reports: where earlier reports may lie, which the index links and `reported` keeps up to date.
    overrides: what `--set` changes of the suites' rows, which are then reported under these settings.
    """

    records: Sequence[RunRecord]
    results: Path | None = None
    suites: Path | None = None
    jobs: int = 1
    drawn: bool = True
    reports: Path | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _materials: dict[str, ReportData] = field(default_factory=dict, repr=False, compare=False)

    def material(self, suite: Suite) -> ReportData:
        """What a suite's report is made from, made once."""
        if suite.name not in self._materials:
            self._materials[suite.name] = ReportData.of(with_baselines(suite, self.runs), self.runs, self.results,
                                                        self.overrides)
        return self._materials[suite.name]

    def reported(self, suite_name: str) -> tuple[str, ...]:
        """The suites that are reported with one: itself, or those it includes and, so that none falls behind, all of
        ours that have a folder of reports already."""
        ours, parts = suite_files.suite_names(self.suites), load_suite(suite_name, self.suites).includes
        there = ours if parts and suite_name in ours and self.reports else ()
        return tuple(dict.fromkeys((*parts, *(n for n in there if (self.reports / n).is_dir())))) or (suite_name,)

    def materials(self, suite_name: str) -> list[ReportData]:
        """The same of all that are reported with a suite, where there are any runs."""
        suites = [load_suite(name, self.suites) for name in self.reported(suite_name)]
        return [m for suite in suites if (m := self.material(suite)).blocks]

    @property
    def runs(self) -> list[RunRecord]:
        """The records but the trials of `tune`, which are no rows of a report."""
        return [record for record in self.records if not record.is_trial]


def render_suite(suite_name: str, records: Sequence[RunRecord], reports: Path, *, suites: Path | None = None,
                 results: Path | None = None, jobs: int = 1,
                 overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Write a suite's report from records and return the path of its Markdown.

    Writes `<reports>/<suite>/` (`report.md`, `appendix.md`, `tables/*.csv`, `figures/*.png|svg`, and `trials.md` where
    `tune` made any), the tables of its paper in `<reports>/papers/`, the page that the suite names and
    `<reports>/index.md`; for a suite that includes others, theirs, those that are there and all papers', and returns
    the index. Nothing but the arguments and the suite, profile, paper, ledger, baseline and template files enters:
    equal records give equal bytes.
    Raises: UserError where no record belongs to the suite, and for a damaged file.
    """
    source = Source(records, results, suites, jobs, reports=reports, overrides=overrides or {})
    pages, front = build(suite_name, source)
    pages.write(reports)
    return reports / front


def build(suite_name: str, source: Source) -> tuple[Pages, str]:
    """All files of a suite's report, and which of them to read first. Raises: UserError, see `render_suite`."""
    suite = load_suite(suite_name, source.suites)
    names = suite_files.suite_names(source.suites)
    every = [m for name in [*names, *([] if suite.name in names else [suite_name])]  # a file of the user's
             if not (one := load_suite(name, source.suites)).includes and (m := source.material(one)).blocks]
    named = {load_suite(name, source.suites).name for name in source.reported(suite_name)}
    wanted = [m for m in every if m.suite.name in named]
    pages = trial_pages(suite_name, source)
    if not wanted and pages.files:
        return pages, next(iter(pages.files))
    if not wanted:
        absent = unregistered(source.records)
        raise UserError(f"no records for suite {suite_name!r}. " + (
            f"{', '.join(absent)}: not registered; give --plugin FILE.py." if absent else
            f"Run `python benchmark.py --suite {suite_name}` first."))
    with threadpool_limits(1), _drawing(wanted, source) as drawn:  # more would fight with the processes that draw
        tables = {key: _tables(load_paper(key), every) for key in paper_names()}
        shown = {m.suite.name: suite_page.write(m, pages, partial(drawn, m), {
            "trials": TRIALS if f"{m.suite.name}/{TRIALS}" in pages.files else "",
            "grids": _grids(m.suite.name, source), "others": _other_runs(m, source)}) for m in wanted}
    pages.whole |= {m.suite.name: (*OWNED, TRIALS) for m in wanted}
    counts = {paper.short: _grades(paper, made) for paper, made, _ in tables.values()}
    for key, (paper, made, by) in tables.items():
        if suite.includes or key in _papers_of(suite):
            pages.text(f"{PAPERS}/{key}.md", _paper(paper, made, by, pages, _figures(key, wanted, shown)) + "\n")
    for material in (m for m in wanted if m.suite.page and not m.overrides):
        if text := _page(material, source, shown, every):
            pages.text(f"{material.suite.page}.md", text)
    links = {f"{name}.md": training_free.TITLE for name in PAGES}
    links |= {f"{m.suite.name}/report.md": m.suite.title for m in every}
    links |= {f"{PAPERS}/{key}.md": f"{paper.short}: the paper's tables beside ours"
              for key, (paper, *_) in tables.items()}
    there = {name: title for name, title in links.items()
             if name in pages.files or (source.reports and (source.reports / name).is_file())}
    pages.text("index.md", index(every, there, counts) + "\n")
    return pages, "index.md" if suite.includes else f"{suite.name}/report.md"


def trial_pages(suite_name: str, source: Source) -> Pages:
    """The pages of trials of all that are reported with a suite, where there are any."""
    pages = Pages()
    for name in source.reported(suite_name):
        suite = load_suite(name, source.suites)
        if text := trials.page(name, suite, source.records, source.overrides):
            pages.text(f"{suite.name}/{TRIALS}", text)
    return pages


def _drawing(materials: Sequence[ReportData], source: Source) -> AbstractContextManager[Callable[[ReportData], Drawn]]:
    """The figures of all reports; what several of them share is computed before the processes part."""
    for material in materials if source.drawn else ():
        for shared in ("look", "searched", "families"):
            getattr(material, shared)
    return drawing([(m, plates(m.suite) if source.drawn else []) for m in materials], source.jobs,
                   source.reports)


def _tables(paper: Paper, materials: Sequence[ReportData]) -> tuple[Paper, list[PrintedTable], ReportData | None]:
    """A paper's tables, and what the suite that names it is reported from, or None."""
    by = next((m for m in materials if m.suite.paper == paper.key), None)
    return paper, printed_tables.paper_tables(paper, by.blocks if by else (), better=_better(by)), by


def _papers_of(suite: Suite) -> list[str]:
    """The papers whose printed numbers or figures a suite is about."""
    drawn = {plate.paper for plate in plates(suite)}
    return [key for key in paper_names() if key == suite.paper or key in drawn]


def _better(material: ReportData | None) -> dict[tuple[str, str], tuple[str, ...]]:
    """(block, row) of what declared comparisons found better, and than which rows."""
    found = grouped((t for one in (material.families if material else ()) for t in one.of("better") if t.whole),
                    lambda t: (t.block.name, t.group.label), lambda t: t.against.label)
    return {place: tuple(dict.fromkeys(labels)) for place, labels in found.items()}


def _grids(suite: str, source: Source) -> str:
    """What the grids of a suite, and of those that include it, were estimated to take; "" where nothing was."""
    around = [suite, *(name for name in suite_files.suite_names(source.suites)
                       if suite in load_suite(name, source.suites).includes)]
    return cost.grids(cost.read_plan(source.results / cost.PLAN), around) if source.results else ""


def _other_runs(material: ReportData, source: Source) -> str:
    """The runs that no row of a suite gives, made with `--set` or by an earlier suite file; "" without."""
    suites = [material.suite, *(one for one in map(load_suite, suite_files.suite_names()) if not one.includes)]
    own = set(material.runs["run_id"])
    rows = [(r, text) for r, text in other_runs(source.runs, suites) if r.run_id not in own]
    return "" if not rows else listed(rows, {
        "Run": lambda of: of[0].run_id, "Dataset": lambda of: dataset_title(of[0]), "Profile": lambda of: of[0].profile,
        "Label": lambda of: of[0].label, "Seed": lambda of: str(of[0].seed),
        title_of(METRIC): lambda of: f"{of[0].metrics[METRIC]:.4f}", "What differs": lambda of: of[1]}, 4)


def _page(material: ReportData, source: Source, shown: Mapping[str, Drawn], every: Sequence[ReportData]) -> str | None:
    """The page that a suite names, with its figure from the suite's folder; None where its records make none."""
    name = material.suite.name
    pictures = [place(Pages(), name, *one) for one in shown[name] if one[0].name == "printed"]
    picture = "".join(pictures).replace("(figures/", f"({name}/figures/")
    return training_free.page(material, source.records, picture, every)


def _grades(paper: Paper, made: Sequence[PrintedTable]) -> Counter[str]:
    """How many printed scores have each grade; counts of data, costs and settings are no scores."""
    return sum((t.grades for t in made if paper.layouts[t.number].kind == "scores"), Counter())


def _paper(paper: Paper, made: Sequence[PrintedTable], material: ReportData | None, pages: Pages,
           figures: Sequence[tuple[str, str, str]] | None) -> str:
    """A paper's page with its tables beside ours, which are also files of their own."""
    for table in made:
        _table(paper, table, pages)
    pages.whole[f"{PAPERS}/{paper.key}"] = PAPER_FILES
    grades = _grades(paper, made)
    return render("paper", paper=paper, scores=grades.total(), ours=grades.total() - grades[NOT_RUN],
                  suite=material and material.suite, tables=made, enough=ENOUGH, fewest=FEWEST, figures=figures,
                  claims="" if paper.measured_by else claims.section(paper, None))


def _figures(key: str, materials: Sequence[ReportData],
             drawn: Mapping[str, Drawn]) -> list[tuple[str, str, str]] | None:
    """Figure, suite and text of which of a paper's measured figures are drawn in which report, and what the others
    need; None without any."""
    own = plates(paper=key)
    told = [(title, m.suite.name, text) for m in materials if any(p.belongs_to(m.suite) for p in own)
            for _, title, text in status(m, key, drawn[m.suite.name])]
    titles = {p.number: p.heading for p in own}.values()
    return (told or [(title, "", "not drawn: no suite has rows for it yet") for title in titles]) if own else None


def build_some(suite_name: str, keys: Collection[str], source: Source) -> tuple[Pages, list[str]]:
    """The files of single tables and figures, `table:1` and `figure:apao-5`, and why some figures are not drawn.

    Raises: UserError for a key that no suite has, naming the nearest.
    """
    suite = load_suite(suite_name, source.suites)
    materials = source.materials(suite_name)
    offered: dict[str, list[Callable[[Pages], list[str]]]] = {}
    for material in materials:
        for plate in plates(material.suite):
            offered.setdefault(plate.key, []).append(partial(_drawn, material, plate, source.jobs))
    for key in paper_names() if suite.includes else _papers_of(suite):
        paper, made, _ = _tables(load_paper(key), materials)
        for table in made:
            offered.setdefault(f"table:{table.number}", []).append(partial(_table, paper, table))
    for key in keys:
        if key not in offered:
            raise unknown("table or figure", key, offered, f"suite {suite_name}")
    pages = Pages()
    return pages, [line for key in keys for make in offered[key] for line in make(pages)]


def _drawn(material: ReportData, plate: Plate, jobs: int, pages: Pages) -> list[str]:
    """Add one figure; returns why it is not drawn."""
    with drawing([(material, [plate])], jobs) as drawn:
        texts = {place(pages, material.suite.name, *one): one[2].files for one in drawn(material)}
    return [text.strip("*") for text, files in texts.items() if files is None]


def _table(paper: Paper, table: PrintedTable, pages: Pages) -> list[str]:
    """Add one table as files of its own."""
    for kind, text in (("csv", table.csv), ("tex", table.latex), ("md", table.markdown + "\n")):
        pages.text(f"{PAPERS}/{paper.key}/table-{table.number}.{kind}", text)
    return []
