"""The parts of a suite's report after its answer, each a list of Markdown paragraphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genrec_bench.core.lazy import pandas
from genrec_bench.experiments.suite_files import suite_names
from genrec_bench.reporting import about, cost, pruning, tables
from genrec_bench.reporting.ledger import load_ledger
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.matching import dataset_title
from genrec_bench.reporting.matching import other_runs as unmatched
from genrec_bench.reporting.pages import Drawn, Pages, place
from genrec_bench.reporting.printed import coverage, tables_of, why_not
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import load_suite
from genrec_bench.reporting.tables import pipe
from genrec_bench.results.records import RunRecord


def results(material: ReportData, pages: Pages, folder: str) -> list[str]:
    """Metrics by method, block by block."""
    blocks = material.blocks
    pages.text(f"{folder}/tables/results.csv", tables.results_csv(blocks))
    pages.text(f"{folder}/tables/runs.csv", tables.runs_csv(blocks))
    several = (material.runs["test_rows"] > material.runs["users"]).any()
    rows = ("Test rows; of a user with several the mean over them counts" if several else "Test targets, one a user")
    parts = [f"{rows}; fractions, item-level (a semantic ID that c items share takes c places, and a "
             "hit counts its expected value). Mean ± sample standard deviation over n seeds; the best of each table's "
             "column in bold. With one target a row, HR@K is the same number as Recall@K. All numbers, unrounded: "
             "[tables/results.csv](tables/results.csv); a line for each run of each table: "
             "[tables/runs.csv](tables/runs.csv)."]
    if len({b.profile for b in blocks}) > 1:
        parts.append(_on_profiles(blocks))
    for block in blocks:
        parts += [f"### {block.name}", tables.results(block), tables.missing_note(block)]
        if tables.differing_by_id(block):
            parts += ["ID-level, as papers publish it (the target's semantic ID counts as the target), where that "
                      "differs:", tables.results(block, prefix="id_")]
    return parts


def _on_profiles(blocks: Sequence[Block]) -> str:
    """How tables of several profiles are to be read."""
    same = list(dict.fromkeys(g.label for b in blocks for g in b.groups if not g.row.seeded))
    text = "A profile sets sizes and schedule of the trained methods: compare within a table, not between profiles."
    if same:
        text += (f" Not seeded: {', '.join(same)}. One run of these is in the tables of all profiles that have the "
                 "same data and rules.")
    return text


def obtained(material: ReportData) -> list[str]:
    """How the numbers were made, in short: data, settings, seeds, selection, hardware, code and the ledger."""
    blocks, runs = material.blocks, material.runs
    threads = runs["threads"].astype("str").fillna("?")
    machines = sorted(set(runs["cpu"].fillna("unknown processor") + ", " + runs["device"].fillna("cpu") + ", " + threads
                          + " thread" + threads.map(lambda n: "" if n == "1" else "s")))
    versions = sorted(set("genrec-bench " + runs["genrec_bench"].fillna("unknown") + " with torch "
                          + runs["torch"].fillna("unknown")))
    commits = sorted({f"`{commit[:10]}`" for commit in runs["commit"].dropna() if commit})
    listed = f": {', '.join(commits)}" if 0 < len(commits) <= 6 else ""
    changed = runs["dirty"].fillna(False).any()
    lines = [f"- **Data**, {b.name}: {_counts(b)}. {about.rules(b)} Seeds: "
             f"{', '.join(map(str, b.seeds)) or 'none, nothing is random'}." for b in blocks]
    lines += ["- **Selection**: the epoch with the best validation NDCG@10, measured with the ranking used at test, "
              "for every method, unless its settings say otherwise.",
              f"- **Hardware**: {'; '.join(machines)}.",
              f"- **Code**: {'; '.join(versions)}; {len(commits)} commit{'s' if len(commits) != 1 else ''}{listed}"
              f"{', some runs with files changed since' if changed else ''}."]
    entries = ledger_entries(material)
    if entries:
        lines.append(f"- **Choices** where paper and code differ or are silent, for these objectives ({len(entries)} "
                     f"in `docs/ledger.md`): {'; '.join(entries)}.")
    lines += ["- **Tests**: declared comparisons only, below; how they work and what they cannot say: "
              "`docs/statistics.md`.",
              "- Settings of every row, budgets and machines in full: at the end."]
    return ["\n".join(line.rstrip() for line in lines)]


def _counts(block: Block) -> str:
    first = block.runs.iloc[0]
    named = {"users": "data_users", "items": "items", "interactions": "interactions"}
    return ", ".join(f"{first[column]:,} {name}" for name, column in named.items() if first[column] is not pandas.NA)


def ledger_entries(material: ReportData) -> list[str]:
    """The choices with a setting that concern the objectives of the rows that were run: method, question's key."""
    trained = {o for b in material.blocks for g in b.groups for stage in g.row.stages for o in stage}
    found = []
    for method in load_ledger():
        for entry in method.entry:
            if entry.setting and entry.setting.partition(".")[0] in trained and entry.readings:
                found.append(f"`{entry.setting}` = {entry.default}")
    return list(dict.fromkeys(found))


def figures(drawn: Drawn, pages: Pages, folder: str, section: str) -> list[str]:
    """The figures of one section of the report."""
    return [place(pages, folder, plate, block, picture) for plate, block, picture in drawn if plate.section == section]


def searched(material: ReportData, pages: Pages, folder: str) -> tuple[list[str], dict[str, list[str]]]:
    """What beam search throws away, or how to measure it: sentences, and tables by block; empty without generation."""
    blocks = material.blocks
    if material.results is None or not any(g.row.backbone for b in blocks for g in b.groups):
        return [], {}
    every = [material.searched[block.name] for block in blocks]
    parts = ["## What beam search throws away", *pruning.section(material.suite, blocks, every)]
    tables_of = {one.block.name: pruning.block_tables(one) for one in every if one}
    if tables_of:  # before any figure computes more, which depends on who draws
        pages.table(f"{folder}/tables/pruning.csv", pruning.CSV_HEADER,
                    [row for one in every if one for row in pruning.csv_rows(one)])
    return parts, tables_of


def beam(text: tuple[list[str], dict[str, list[str]]], pages: Pages, folder: str, drawn: Drawn) -> list[str]:
    """The text of `searched` with the figures of each block after its tables."""
    parts, tables_of = text
    if not tables_of:
        return parts
    for plate, block, picture in drawn:
        if plate.section == "pruning":
            tables_of.setdefault("" if block is None else block.name, []).append(
                place(pages, folder, plate, block, picture))
    return [*parts, *(line for lines in tables_of.values() for line in lines)]


def efficiency(material: ReportData, pages: Pages, folder: str) -> list[str]:
    """What the rows cost."""
    pages.table(f"{folder}/tables/efficiency.csv", cost.EFFICIENCY_HEADER,
                [row for b in material.blocks for row in cost.efficiency_rows(b)])
    parts = ["Means over seeds, as measured in the runs; compare times only between rows of the same device and "
             "threads. Training counts the first stage, which is also shown by itself; \"3 + 1\" epochs are those of "
             "two stages. Positions are the tokens that the decoder was run over, in all stages, with and without "
             "gradient, as multiples of those of cross-entropy on the same backbone: they do not depend on the "
             "machine. Memory is the peak of the run's own process. Unrounded: "
             "[tables/efficiency.csv](tables/efficiency.csv)."]
    for block in material.blocks:
        parts += [f"### {block.name}", cost.efficiency(block)]
    return parts


def budget(blocks: Sequence[Block]) -> list[str]:
    """Which rows had equal budgets, from the records, and how settings were found, from the profiles."""
    parts = ["Optimiser steps as recorded, of all stages. A first stage is part of its row's budget, and its time is "
             "counted, although rows that share one train it once."]
    for block in blocks:
        parts += [f"**{block.name}**:", cost.budget(block)]
    return [*parts, cost.tuning(blocks)]


def grids(suite: str, results: Path | None, suites: Path | None) -> list[str]:
    """What the grids of a suite, and of those that include it, were estimated to take; [] where nothing was."""
    around = [suite, *(name for name in suite_names(suites) if suite in load_suite(name, suites).includes)]
    table = cost.grids(cost.read_plan(results / cost.PLAN), around) if results else ""
    return ["## What the grids cost", "Estimates of `plan --save`: every run of a grid from nothing, trained to its "
            "last epoch, so upper bounds. Runs that two suites share are counted in both.", table] if table else []


def settings(material: ReportData, pages: Pages, folder: str) -> list[str]:
    """Data, semantic IDs, settings and machines in full."""
    blocks = material.blocks
    pages.table(f"{folder}/tables/data.csv", about.DATA_HEADER, about.data_rows(blocks))
    pages.table(f"{folder}/tables/tokenizers.csv", about.TOKENIZER_HEADER, about.tokenizer_rows(blocks))
    tokenizers = about.tokenizer_table(blocks)
    parts = ["### Data", about.data_table(blocks)]
    parts += ["### Semantic IDs", tokenizers] if tokenizers else []
    parts += ["### Settings"]
    for block in blocks:
        parts += [f"**{block.name}**:", about.settings(block)]
    return [*parts, "### Machines and versions", about.machines(material.runs), about.code_note(material.runs)]


def beside(material: ReportData) -> list[str]:
    """Which blocks may stand beside the paper, and where its tables are."""
    paper = material.paper
    if paper is None:
        return []
    reasons = {b.name: why_not(b, paper) for b in material.blocks}
    lines = [f"- **{name}**: not comparable; {reason}." for name, reason in reasons.items() if reason]
    return ["### Beside the paper", f"The paper's tables with our numbers, grades and reasons: "
            f"[{paper.key} tables](../papers/{paper.key}.md).", "\n".join(lines)]


def not_covered(material: ReportData) -> list[str]:
    """The paper's rows that no run stands for."""
    paper = material.paper
    if paper is None:
        return []
    rows, done, total = coverage(material.suite, list(material.blocks), paper)
    header = ["Table", "Backbone", "Method", "Our row", *(f"{t} ({ours})" for ours, t in paper.datasets.items())]
    numbers = tables_of(material.suite.rows)
    return ["## Not covered yet",
            f"{done} of the {total} results of Table{'s' if len(numbers) > 1 else ''} {' and '.join(numbers)} (a "
            "backbone and method on a dataset) have been run with the paper's data and settings. \"Other settings\": "
            "run, but not as the paper does.", tables.pipe(header, rows, numeric_from=len(header))]


def other_runs(records: Sequence[RunRecord], material: ReportData) -> list[str]:
    """The runs that no row of a suite gives, made with `--set` or by an earlier suite file: in no table above."""
    suites = [material.suite, *(load_suite(name) for name in suite_names() if not load_suite(name).includes)]
    known = {r.run_id for b in material.blocks for g in b.groups for r in g.records}
    found = [(r, text) for r, text in unmatched(records, suites) if r.run_id not in known]
    if not found:
        return []
    rows = [[r.run_id, dataset_title(r), r.profile, r.label, str(r.seed), f"{r.metrics['ndcg@10']:.4f}", text]
            for r, text in found]
    header = ["Run", "Dataset", "Profile", "Label", "Seed", "NDCG@10", "What differs"]
    return ["## Other runs", "Records below the same folder that no row of a suite gives. They are in no table, test "
            "or figure above.", pipe(header, rows, numeric_from=4)]
