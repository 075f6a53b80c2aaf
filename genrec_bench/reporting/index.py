"""`index.md`: what is known of each paper's claims, who leads on each data set, and links to the reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from genrec_bench.reporting import claims
from genrec_bench.reporting.families import UNTESTED
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.papers import load_paper, paper_names
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import DASH, METRIC, mean_sd, pipe


def index(materials: Sequence[ReportData], links: Mapping[str, str], grades: Mapping[str, Mapping[str, int]]) -> str:
    """The index of all suites with records, as Markdown.

    links: files of the reports and pages that are there, with their titles. grades: paper -> grade -> printed scores.
    """
    by_suite = {m.suite.name: m for m in materials}
    papers = []
    for paper in (p for p in map(load_paper, paper_names()) if p.claims):
        found = claims.known_by_claim(paper, by_suite.get(paper.measured_by))
        page = f"{paper.measured_by}/report.md"
        papers.append({"short": paper.short, "report": page if page in links else "",
                       "table": pipe(["Claim", "Known", "Measured on (data, profile)"], found, numeric_from=3)})
    counted = [(name, sum(of.values()), [(g, n) for g, n in of.items() if n]) for name, of in grades.items()]
    return render("index", papers=papers, leaders=_leaders(materials), runs=_runs(materials), links=links,
                  tests=_tests(materials), grades=counted)


def _runs(materials: Iterable[ReportData]) -> str:
    """A line a suite and profile: data sets, methods and runs."""
    rows = []
    for material in materials:
        for profile in sorted({b.profile for b in material.blocks}):
            blocks = [b for b in material.blocks if b.profile == profile]
            runs = {run for b in blocks for run in b.runs["run_id"]}
            rows.append([material.suite.name, profile, ", ".join(dict.fromkeys(b.dataset for b in blocks)),
                         str(len({g.label for b in blocks for g in b.groups})), str(len(runs))])
    return pipe(["Suite", "Profile", "Data sets", "Methods", "Runs"], rows, numeric_from=3)


def _leaders(materials: Iterable[ReportData]) -> str:
    """The best row of each data set and profile, and the best generative one; whole rows of the block with most."""
    most: dict[tuple[str, str], Block] = {}
    for block in (b for m in materials for b in m.blocks if b.profile not in UNTESTED):
        key = block.dataset, block.profile
        if key not in most or len(block.groups) > len(most[key].groups):
            most[key] = block
    rows = []
    for (dataset, profile), block in sorted(most.items()):
        whole = [g for g in block.groups if g.values(METRIC) and not block.missing(g)]
        if whole:
            rows.append([f"{dataset}, {profile}", *_best(whole), *_best([g for g in whole if g.row.baseline is None])])
    header = ["Data, profile", "Best row", "NDCG@10", "Best generative row", "NDCG@10"]
    return pipe(header, rows, numeric_from=5) if rows else ""


def _best(groups: Sequence[Group]) -> list[str]:
    best = max(groups, key=lambda g: g.mean(METRIC), default=None)
    return [DASH, DASH] if best is None else [best.label, mean_sd(best.summary(METRIC))]


def _tests(materials: Iterable[ReportData]) -> str:
    """How many pre-registered comparisons found something, by suite and profile."""
    rows = []
    for material in materials:
        for profile in dict.fromkeys(one.profile for one in material.families):
            tests = [t for one in material.families if one.profile == profile for t in one.tests]
            counts = [str(sum(t.verdict == word for t in tests)) for word in ("better", "worse", None)]
            rows += [[material.suite.name, profile, str(len(tests)), *counts]] if tests else []
    header = ["Suite", "Profile", "Tests", "Better", "Worse", "No difference detected"]
    return pipe(header, rows, numeric_from=2) if rows else ""
