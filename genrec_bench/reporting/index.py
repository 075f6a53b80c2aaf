"""`index.md`: what was run, five findings said from the numbers, and links to the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genrec_bench.analysis import pruning
from genrec_bench.reporting.answer import METRIC, value_text
from genrec_bench.reporting.load import Block, Group, Summary
from genrec_bench.reporting.pruning import BEAM, Diagnosed, percent
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import pipe, title_of

UNTOLD = ("smoke",)  # profiles whose numbers mean nothing


def index(materials: Sequence[ReportData], links: Mapping[str, str], grades: Mapping[str, Mapping[str, int]]) -> str:
    """The index of all suites with records, as Markdown.

    links: files of the reports and pages that are there, with their titles. grades: paper -> grade -> printed scores.
    """
    told = [m for m in materials if any(b.profile not in UNTOLD for b in m.blocks)]
    findings = [_best(told), _verdicts(told), _strongest(told), _lost(told), _printed(grades)] if told else \
        ["Only profile smoke has been run: it shows that everything works, and its numbers mean nothing."]
    sections = ["# Reports", "## Findings", "\n".join(f"{n}. {text}" for n, text in enumerate(findings, 1)),
                "## What was run", _what(materials)]
    lines = [f"- [{title}]({name})" for name, title in links.items()]
    return "\n\n".join([*sections, "## Reports and tables", "\n".join(lines)]) + "\n"


def _what(materials: Sequence[ReportData]) -> str:
    rows = []
    for material in materials:
        for block in material.blocks:
            runs = block.runs["run_id"].nunique()
            whole = sum(not block.missing(g) for g in block.groups)
            rows.append([material.suite.name, block.name, f"{len(block.groups)}", f"{whole}", str(runs),
                         ", ".join(map(str, block.seeds)) or "none"])
    return pipe(["Suite", "Data and profile", "Methods", "with all seeds", "Runs", "Seeds"], rows, numeric_from=2)


def _blocks(materials: Sequence[ReportData]) -> list[Block]:
    """Each data set and profile once, the block with most methods."""
    best: dict[tuple[str, str], Block] = {}
    for block in (b for m in materials for b in m.blocks if b.profile not in UNTOLD):
        key = block.dataset, block.profile
        if key not in best or len(block.groups) > len(best[key].groups):
            best[key] = block
    return [best[key] for key in sorted(best)]


def _scored(block: Block) -> list[tuple[Group, Summary]]:
    return [(g, g.summary(METRIC)) for g in block.groups if g.values(METRIC) and not block.missing(g)]


def _best(materials: Sequence[ReportData]) -> str:
    """Who leads on each data set, and where the best generative model stands."""
    parts = []
    for block in _blocks(materials):
        scored = _scored(block)
        generative = [p for p in scored if p[0].row.baseline is None]
        if not scored:
            continue
        group, score = max(scored, key=lambda p: p[1].mean)
        text = f"on {block.dataset} (profile {block.profile}) {group.label} leads with {value_text(score)}"
        if generative and group.row.baseline is not None:
            own, reached = max(generative, key=lambda p: p[1].mean)
            text += f"; the best generative row, {own.label}, reaches {value_text(reached)}"
        parts.append(text)
    return f"**Who leads by {title_of(METRIC)}**: {'; '.join(parts)}." if parts else \
        f"No row has {title_of(METRIC)} for all its seeds yet."


def _verdicts(materials: Sequence[ReportData]) -> str:
    """How many declared comparisons found something."""
    tests = [t for m in materials for one in m.families for t in one.tests]
    if not tests:
        return "**Verdicts**: no declared comparison has complete runs yet."
    parts = []
    for kind, some in (("against a row of the same backbone", [t for t in tests if t.against.row.baseline is None]),
                       ("against a classic baseline", [t for t in tests if t.against.row.baseline is not None])):
        if some:
            counts = [sum(t.verdict == v for t in some) for v in ("better", "worse", None)]
            parts.append(f"of {len(some)} {kind} {counts[0]} find the method better, {counts[1]} worse, and "
                         f"{counts[2]} detect no difference")
    quiet = [t.detectable for t in tests if t.verdict is None]
    span = f" (where none was detected, it would have taken {min(quiet):.4f} to {max(quiet):.4f})" if quiet else ""
    return f"**Verdicts** of the declared comparisons, corrected by Holm: {'; '.join(parts)}{span}."


def _strongest(materials: Sequence[ReportData]) -> str:
    """The largest difference of an objective that was found against a generative row."""
    found = [t for m in materials for one in m.families for t in one.tests
             if t.verdict and t.against.row.baseline is None]
    if not found:
        return ("**Objectives**: no declared objective is better or worse than what it is measured by on the same "
                "backbone; that is not the same as equal.")
    texts = []
    for outcome in ("better", "worse"):
        some = [t for t in found if t.verdict == outcome]
        if some:
            t = max(some, key=lambda t: abs(t.comparison.difference))
            low, high = t.comparison.interval
            texts.append(f"{'the largest gain' if outcome == 'better' else 'the largest loss'} is that of "
                         f"{t.group.label} over {t.against.name} on {t.block.dataset}, {t.comparison.difference:+.4f} "
                         f"[{low:+.4f}, {high:+.4f}]")
        else:
            texts.append(f"none is {outcome}")
    return f"**Objectives** against their declared reference on the same backbone: {'; '.join(texts)}."


def _lost(materials: Sequence[ReportData]) -> str:
    """What beam search loses under cross-entropy."""
    rows: dict[tuple[str, str], Diagnosed] = {}
    for found in (s for m in materials for s in m.searched.values() if s and s.block.profile not in UNTOLD):
        for family in found.families():
            row = found.reference(family)
            if row is not None and BEAM in found.beams and row.group.row.stages == (("cross_entropy",),):
                rows.setdefault((found.block.dataset, family), row)
    parts = [f"{percent(row.estimate(pruning.pruning_rate, k=BEAM, beam=BEAM))} with {row.group.label} on {dataset}"
             for (dataset, _), row in rows.items()]
    return (f"**Beam search**: a beam of {BEAM} loses, of the targets that full sorting ranks within {BEAM}, "
            f"{'; '.join(parts)}.") if parts else "**Beam search**: nothing has been diagnosed yet."


def _printed(grades: Mapping[str, Mapping[str, int]]) -> str:
    """How many printed scores are reproduced, by grade."""
    parts = []
    for paper, counts in grades.items():
        total = sum(counts.values())
        run = [f"{count} {grade}" for grade, count in counts.items() if count and grade != "not run"]
        absent = counts.get("not run", 0)
        parts.append(f"{paper}: of {total} printed scores {', '.join([*run, f'{absent} not run'])}")
    return f"**Printed numbers**: {'; '.join(parts)}." if parts else "**Printed numbers**: no paper is on file."
