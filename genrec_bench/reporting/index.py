"""`index.md`: what is known of each paper's claims, who leads on each data set, and links to the reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from genrec_bench.analysis.claims import OPEN
from genrec_bench.core.lists import grouped
from genrec_bench.experiments.suite_files import undecided
from genrec_bench.reporting import claims
from genrec_bench.reporting.families import UNTESTED
from genrec_bench.reporting.load import Group
from genrec_bench.reporting.papers import load_paper, paper_names
from genrec_bench.reporting.printed import GRADES
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import BESIDE, DASH, METRIC, listed, mean_sd, pipe


def index(materials: Sequence[ReportData], links: Mapping[str, str], grades: Mapping[str, Mapping[str, int]]) -> str:
    """The index of all suites with records, as Markdown.

    links: files of the reports and pages that are there, with their titles. grades: paper -> grade -> printed scores.
    """
    by_suite = {m.suite.name: m for m in materials}
    papers, answers = [], []
    for paper in (p for p in map(load_paper, paper_names()) if p.claims):
        found = claims.known_by_claim(paper, by_suite.get(paper.measured_by))
        page = f"{paper.measured_by}/report.md"
        answers += [answer for _, answer, _ in found]
        papers.append({"short": paper.short, "report": page if page in links else "",
                       "table": pipe(["Claim", "Answer", "Measured on (data, profile)"], found, numeric_from=3)})
    counted = [(name, sum(of.values()), [(g, of[g]) for g in GRADES if of.get(g)]) for name, of in grades.items()]
    networks = {b.dataset for m in materials for b in m.blocks for g in b.groups
                if g.row.baseline is None and not undecided(b.profile)}
    return render("index", papers=papers, claims=len(answers),
                  settled=sum(not answer.startswith(OPEN) for answer in answers), networks=sorted(networks),
                  leaders=_leaders(materials), runs=_runs(materials), links=links, tests=_tests(materials),
                  grades=counted)


def _runs(materials: Iterable[ReportData]) -> str:
    """A line a suite and profile: data sets, methods and runs."""
    rows = [(m, profile, blocks) for m in materials
            for profile, blocks in sorted(grouped(m.blocks, lambda b: b.profile).items())]
    return listed(rows, {
        "Suite": lambda of: of[0].suite.name, "Profile": lambda of: of[1],
        "Data sets": lambda of: ", ".join(dict.fromkeys(b.dataset for b in of[2])),
        "Methods": lambda of: str(len({g.label for b in of[2] for g in b.groups})),
        **{title: lambda of, all_of=all_of: str(len({run for b in of[2] for g in b.groups for run in g.runs["run_id"]
                                                     if all_of or g.row.baseline is None}))
           for title, all_of in (("Runs", True), ("of them generative", False))}}, 3)


def _leaders(materials: Iterable[ReportData]) -> str:
    """The best row of each data set, split and profile, and the best generative one; whole rows of all suites."""
    whole = grouped(((b, g) for m in materials for b in m.blocks if b.profile not in UNTESTED for g in b.groups
                     if g.values(METRIC) and not b.missing(g)),
                    lambda of: (of[0].dataset, of[0].profile, of[1].records[0].split_fingerprint), lambda of: of[1])
    rows = [[f"{dataset}, {profile}", *_best(groups), *_best([g for g in groups if g.row.baseline is None])]
            for (dataset, profile, _), groups in sorted(whole.items())]
    header = ["Data, profile", "Best row", "NDCG@10, history kept / out", "Best generative row",
              "NDCG@10, history kept / out"]
    return pipe(header, rows, numeric_from=5) if rows else ""


def _best(groups: Sequence[Group]) -> list[str]:
    best = max(groups, key=lambda g: g.mean(METRIC), default=None)
    return [DASH, DASH] if best is None else [best.label, " / ".join(mean_sd(best.summary(m))
                                                                            for m in (METRIC, BESIDE))]


def _tests(materials: Iterable[ReportData]) -> str:
    """How many declared comparisons found something, by suite and profile."""
    rows = [(m.suite.name, profile, Counter(t.verdict for one in of for t in one.tests)) for m in materials
            for profile, of in grouped(m.families, lambda one: one.profile).items() if any(one.tests for one in of)]
    counted = {"Better": "better", "Worse": "worse", "No difference detected": None}
    return "" if not rows else listed(rows, {
        "Suite": lambda of: of[0], "Profile": lambda of: of[1], "Tests": lambda of: str(of[2].total()),
        **{title: lambda of, word=word: str(of[2][word]) for title, word in counted.items()},
        "Why it answers no claim": lambda of: undecided(of[1])}, 2)
