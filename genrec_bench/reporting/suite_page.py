"""The report of a suite: a page to read in two minutes, and an appendix with everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genrec_bench.analysis.ranking import against
from genrec_bench.core.lists import grouped
from genrec_bench.experiments.suite_files import load_profile, profile_names, undecided
from genrec_bench.reporting import about, claims, cost, groups, latex, power, pruning, tables, verdicts
from genrec_bench.reporting.groups import reference, together
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.pages import Drawn, Pages, place
from genrec_bench.reporting.papers import load_paper, paper_names
from genrec_bench.reporting.printed import coverage, tables_of, why_not
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import BESIDE, DASH, METRIC, UNSEEN, pipe, title_of

MOST_WORDS = 2500  # of the main page, as `wc -w` counts; result tables beyond go to the appendix
SHOWN = ("recall@10", METRIC, f"{UNSEEN}recall@10", BESIDE)


def write(material: ReportData, pages: Pages, draw: Callable[[], Drawn], extra: dict[str, Any]) -> Drawn:
    """Add a suite's page, appendix, tables and figures; returns the figures.

    draw: gives the figures, which others draw meanwhile, so it is asked last. extra: what the caller knows of other
    records: `trials`, whether there is a page of them, `grids`, a table, and `others`, a table of other runs.
    """
    folder = material.suite.name
    own = _main_facts(material, pages, folder)
    more = _appendix_facts(material, pages, folder)
    drawn = draw()
    figures = [place(pages, folder, *one) for one in drawn]
    pictures = [text for text in figures if text.startswith("!")]
    links: dict[str, list[tuple[str, str]]] = {}
    for (plate, block, _), text in zip(drawn, figures, strict=True):
        if text in pictures:
            links.setdefault(plate.title, []).append((block.name if block else "all data",
                                                      text.partition("](")[2].partition(")")[0]))
    for shown in range(len(own["results"]), -1, -1):
        page = render("report", **own, shown=shown, figures=links)
        if len(page.split()) <= MOST_WORDS:
            break
    pages.text(f"{folder}/report.md", page + "\n")
    for name, tables_there in latex.of_page(page, material.suite.title, folder).items():
        pages.text(f"{folder}/tables/{name}.tex", tables_there)
    text = render("appendix", **own, **more, **extra, shown=shown, pictures=pictures,
                  undrawn=[text for text in figures if not text.startswith("!")])
    pages.text(f"{folder}/appendix.md", text + "\n")
    return drawn


def _main_facts(material: ReportData, pages: Pages, folder: str) -> dict[str, Any]:
    """What the main page shows."""
    blocks, paper = material.blocks, material.paper
    pages.text(f"{folder}/tables/results.csv", tables.results_csv(blocks))
    pages.text(f"{folder}/tables/runs.csv", tables.runs_csv(blocks))
    if material.families:
        pages.text(f"{folder}/tables/tests.csv", verdicts.tests_csv(material.families))
    claimed = [one for one in map(load_paper, paper_names()) if one.measured_by == folder]
    generative = any(g.row.backbone for b in blocks for g in b.groups)
    small = [b for b in blocks if not any(g.row.backbone or g.row.seeded and not generative for g in b.groups)]
    own = [b for b in blocks if b not in small]
    telling = [b for b in own if not undecided(b.profile)] or own
    results = [_result(material, b) for b in own]
    seeds = {b.name: [len(g.records) for g in b.groups if g.row.seeded] for b in own}
    return {
        "suite": material.suite, "paper": paper, "runs": len(material.runs),
        "papers": list(dict.fromkeys(one.link for one in (paper, *claimed) if one)),
        "profiles": [load_profile(name)["title"] if name in profile_names() else name
                     for name in sorted({b.profile for b in blocks})],
        "changed": [f"{part}.{name} = {value}" for part, values in material.overrides.items()
                    for name, value in values.items()],
        "claims": [claims.section(one, material, pages, folder) for one in claimed],
        "trained": any(seeds.values()), "single": [name for name, of in seeds.items() if of and max(of) == 1],
        "results": results, "columns": {name for one in results for name in one["columns"]},
        "baselines": _baselines(small) if small else "",
        "several": bool((material.runs["test_rows"] > material.runs["users"]).any()),
        "families": len(material.suite.families) if material.families else 0,
        "declared": bool(material.suite.families),
        "tests": render("tests", **verdicts.facts(material.families, paper), nothing=verdicts.NOTHING)
        if material.families else "", "groups": groups.section(material, telling or small, pages, folder)}


def _result(material: ReportData, block: Block) -> dict[str, Any]:
    """The table of one block, with what stands around it. Rows of wider grids than the core are in the appendix."""
    core = [g for g in block.groups if g.row.grid == "core"] or list(block.groups)
    backbones = {g.row.backbone for g in core}
    lacking = [r for r in material.suite.rows if r.grid == "core" and (r.baseline or r.backbone in backbones)
               and not any(g.row is r and block.stands(g) for g in core)]
    differences = _differences(material, block, core)
    found = material.searched[block.name]
    columns: dict[str, list[str]] = {
        "Method": [g.label for g in core], "n": [tables.seeds_cell(block, g) for g in core],
        **{_short(m): tables.means(block, core, m, spread=False, best=not lacking) for m in SHOWN
           if any(g.values(m) for g in core)},
        "Difference, %": [differences.get(g.label, DASH) for g in core],
        "PR@20, %": [pruning.rate(found, g).replace(" %", "") for g in core],
        "Cost": list(map(cost.positions(block), core)),
        "Epochs (best)": [f"{run} ({kept})" if run else DASH for run, kept in map(cost.epochs, core)],
        "Prefix weights": [_weights(g) for g in core]}
    shown = {name: [cell or DASH for cell in cells] for name, cells in columns.items()
             if any(cell not in ("", DASH) for cell in cells)}
    return {"name": block.name, "columns": list(shown), "table": pipe(list(shown), zip(*shown.values(), strict=True)),
            "note": tables.missing_note(block), "left": len(block.groups) - len(core), "lacking": len(lacking),
            "tied": _tied(block)}


def _tied(block: Block) -> float:
    """The share of test targets that the file's order alone picks, as their times are equal."""
    order = next((r.data["order"] for g in block.groups for r in g.records if "order" in r.data), {})
    return order.get("tied_targets", 0) / order["targets"] if order.get("targets") else 0.0


def _short(metric: str) -> str:
    return title_of(metric).replace("Recall", "R").replace("NDCG", "N")


def _differences(material: ReportData, block: Block, core: Sequence[Group]) -> dict[str, str]:
    """NDCG@10 against the row's reference in per cent of it, with an interval over users and the seeds that both have
    where there are ranks, of a declared comparison its own; the reference says what it is."""
    groups = [g for g in core if block.stands(g) and g.mean(METRIC) is not None]
    tested = {(t.group.label, t.against.label): t.comparison for one in material.families for t in one.tests
              if t.block is block}
    told: dict[str, str] = {}
    for own, rows, places in together(block, groups):
        values = [material.values(g) for g in rows]
        found = None if any(v is None for v in values) else against(values, places)
        for n, (group, at) in enumerate(zip(own, places, strict=False)):
            base = rows[at]
            if group.label == base.label:
                told[group.label] = "reference" if reference(block, group, groups) is group else DASH
            elif (c := tested.get((group.label, base.label))) is not None:
                told[group.label] = verdicts.interval(c.difference, *c.interval, c.mean_b)
            elif found is None:
                told[group.label] = verdicts.percent(rows[n].mean(METRIC) - base.mean(METRIC), base.mean(METRIC), "+")
            elif (gap := found[n][1]) is not None:
                told[group.label] = verdicts.interval(gap.value, gap.low, gap.high, found[at][0].value)
    return told


def _weights(group: Group) -> str:
    """The final weights of APAO's prefixes, means over seeds."""
    seeds = [[float(w) for w in text.split()] for text in group.values("prefix_weights")]
    return " ".join(f"{sum(of) / len(of):.2f}" for of in zip(*seeds, strict=True)) if seeds else ""


def _baselines(blocks: Sequence[Block]) -> str:
    """One table for the data sets that have baselines only: NDCG@10, the history kept and taken out."""
    labels = dict.fromkeys(g.label for b in blocks for g in b.groups)
    rows = []
    for block in blocks:
        cells = {g.label: " / ".join(f"{mean:.4f}" if (mean := g.mean(m)) is not None else DASH
                                     for m in (METRIC, BESIDE)) for g in block.groups}
        rows.append([f"{block.dataset}, {block.profile}", *(cells.get(label, DASH) for label in labels)])
    return pipe(["Data, profile", *labels], rows)


def _appendix_facts(material: ReportData, pages: Pages, folder: str) -> dict[str, Any]:
    """What the appendix shows beside what the main page does."""
    blocks, paper = material.blocks, material.paper
    pages.table(f"{folder}/tables/efficiency.csv", cost.EFFICIENCY_HEADER,
                [row for b in blocks for row in cost.efficiency_rows(b)])
    pages.table(f"{folder}/tables/data.csv", about.DATA_HEADER, about.data_rows(blocks))
    pages.table(f"{folder}/tables/tokenizers.csv", about.TOKENIZER_HEADER, about.tokenizer_rows(blocks))
    same = list(dict.fromkeys(g.label for b in blocks for g in b.groups if not g.row.seeded))
    facts: dict[str, Any] = {
        "blocks": [_block(b) for b in blocks], "unseeded": same, "tokenizers": about.tokenizer_table(blocks),
        "data": about.data_table(blocks), "tuning": cost.tuning(blocks), "machines": about.machines(material.runs),
        "commits": int(material.runs["commit"].nunique(dropna=False)),
        "dirty": bool(material.runs["dirty"].fillna(False).any()),
        "earlier": any(r.provenance.get("earlier") for r in material.runs["record"]),
        "choices": about.choices(blocks), "searched": _searched(material, pages, folder),
        "verdicts": verdicts.facts(material.families, paper), "power": power.section(material, pages, folder),
        "beside": [], "coverage": None}
    if paper is not None:
        rows, done, total = coverage(material.suite, list(blocks), paper)
        header = ["Table", "Backbone", "Method", "Our row", *(f"{t} ({ours})" for ours, t in paper.datasets.items())]
        facts["coverage"] = {"done": done, "total": total, "tables": tables_of(material.suite.rows),
                             "table": pipe(header, [row for row in rows if _is_run(row)], numeric_from=len(header)),
                             "absent": sum(not _is_run(row) for row in rows), "any": any(map(_is_run, rows))}
        facts["beside"] = list(grouped(((why_not(b, paper).replace(b.dataset, "it"), b.name) for b in blocks
                                        if why_not(b, paper)), lambda of: of[0], lambda of: of[1]).items())
    return facts


def _is_run(row: Sequence[str]) -> bool:
    """Whether a line of `coverage` has a record on any data set."""
    return any(cell not in ("no record", DASH) for cell in row[4:])


def _block(block: Block) -> dict[str, Any]:
    by_id = tables.differing_by_id(block)
    return {"name": block.name, "counts": about.counts(block), "rules": about.rules(block), "seeds": block.seeds,
            "results": tables.results(block), "note": tables.missing_note(block),
            "by_id": tables.results(block, prefix="id_") if by_id else "", "efficiency": cost.efficiency(block),
            "budget": cost.budget(block) if any(g.values("steps") for g in block.groups) else "",
            "settings": about.settings(block)}


def _searched(material: ReportData, pages: Pages, folder: str) -> str:
    """What beam search prunes, or how to measure it; "" without generation."""
    blocks = material.blocks
    if material.results is None or not any(g.row.backbone for b in blocks for g in b.groups):
        return ""
    every = [material.searched[block.name] for block in blocks]
    text = pruning.section(material.suite, blocks, every)
    if any(every):  # before any figure computes more, which depends on who draws
        pages.table(f"{folder}/tables/pruning.csv", pruning.CSV_HEADER,
                    [row for one in every if one for row in pruning.csv_rows(one)])
    return text
