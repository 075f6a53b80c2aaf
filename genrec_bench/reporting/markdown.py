"""The report of a suite: a pure function of its records, the suite file and the paper file."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from genrec_bench.declared import suite_names
from genrec_bench.diagnoses import Diagnosis
from genrec_bench.errors import UserError
from genrec_bench.records import RunRecord, write_atomically
from genrec_bench.reporting import about, cost, figures, pruning, pruning_figures, tables
from genrec_bench.reporting.answer import METRIC, answer
from genrec_bench.reporting.load import Block, arrange, diagnoses_of
from genrec_bench.reporting.papers import Paper, load_paper
from genrec_bench.reporting.printed import coverage, tables_of, why_not, why_not_group
from genrec_bench.reporting.rows import Suite, load_suite


def render_suite(suite_name: str, records: Sequence[RunRecord], reports: Path, *,
                 suites: Path | None = None, results: Path | None = None) -> Path:
    """Write a suite's report from records and return the path of its Markdown.

    Writes `<reports>/<suite>/report.md`, `tables/*.csv`, `figures/*.png|svg` and `<reports>/index.md`; for a suite
    that includes others, theirs, and returns the index. results: the folder of the records, for what lies beside them:
    diagnoses, and the costs of the grids that `plan --save` left; without it the report is silent on both. Nothing
    but the arguments and the suite, profile, paper and baseline files enters: equal records give equal bytes.
    Raises: UserError where no record belongs to the suite, and for a damaged diagnosis.
    """
    suite = load_suite(suite_name, suites)
    if suite.includes:
        return _render_all(suite, records, reports, suites, results)
    blocks = arrange(suite, records)
    if not blocks:
        raise UserError(f"no records for suite {suite_name!r}. Run `python benchmark.py --suite {suite_name}` first.")
    folder = reports / suite_name
    written = _Writer(folder)
    grids = _grids(suite.name, results, suites)
    paper = load_paper(suite.paper) if suite.paper else None
    pruned = _pruning(suite, blocks, paper, diagnoses_of(blocks, results), written) if results is not None else []
    report = _report(suite, blocks, paper, written, grids, pruned)
    written.text("report.md", report)
    written.tidy()
    _index(reports, suites)
    return folder / "report.md"


def _render_all(suite: Suite, records: Sequence[RunRecord], reports: Path, suites: Path | None,
                results: Path | None) -> Path:
    inside = [name for name in suite.includes if arrange(load_suite(name, suites), records)]
    if not inside:
        raise UserError(f"no records for suite {suite.name!r}. Run `python benchmark.py --suite {suite.name}` first.")
    for name in inside:
        render_suite(name, records, reports, suites=suites, results=results)
    return reports / "index.md"


class _Writer:
    """Writes a report's files and then removes tables and figures that an earlier report left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: set[Path] = set()

    def data(self, name: str, content: bytes) -> None:
        """Write one file below the report's folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        self.paths.add(path)

    def text(self, name: str, content: str) -> None:
        """Write one text file as UTF-8."""
        self.data(name, content.encode())

    def tidy(self) -> None:
        """Remove tables and figures that were not written this time."""
        for pattern in ("tables/*.csv", "figures/*.png", "figures/*.svg"):
            for path in set(self.folder.glob(pattern)) - self.paths:
                path.unlink()


def _report(suite: Suite, blocks: list[Block], paper: Paper | None, out: _Writer, grids: list[str],
            pruned: list[str]) -> str:
    profiles = ", ".join(sorted({b.profile for b in blocks}))
    head = f"Made from {len(about.records_of(blocks))} runs, profile{'s' if ',' in profiles else ''} {profiles}."
    if paper:
        head += f" Paper: [{paper.title}]({paper.url})."
    out.text("tables/results.csv", tables.results_csv(blocks))
    out.text("tables/runs.csv", tables.runs_csv(blocks))
    sections = [f"# {suite.title}", head, "## The answer", answer(blocks), "## Results", *_results(blocks)]
    if paper:
        sections += ["## Beside the paper", *_beside(blocks, paper, out)]
    sections += [*pruned, "## Figures", *_figures(blocks, paper, out), "## Efficiency", *_efficiency(blocks, out),
                 "## Budget and tuning", *_budget(blocks), *grids, "## What was run, and where", *_about(blocks, out)]
    if paper:
        sections += ["## Not covered yet", *_not_covered(suite, blocks, paper)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _results(blocks: list[Block]) -> list[str]:
    parts = ["Test targets, one a user; fractions, item-level (a semantic ID that c items share takes c places, and a "
             "hit counts its expected value). Mean ± sample standard deviation over n seeds; the best of each table's "
             "column in bold. With one target a user, HR@K is the same number as Recall@K. All numbers, unrounded: "
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


def _on_profiles(blocks: list[Block]) -> str:
    """How tables of several profiles are to be read."""
    same = list(dict.fromkeys(g.label for b in blocks for g in b.groups if not g.row.seeded))
    text = "A profile sets sizes and schedule of the trained methods: compare within a table, not between profiles."
    if same:
        text += (f" Not seeded: {', '.join(same)}. One run of these stands in the tables of all profiles that have the "
                 "same data and rules.")
    return text


def _beside(blocks: list[Block], paper: Paper, out: _Writer) -> list[str]:
    reasons = {b.name: why_not(b, paper) for b in blocks}
    parts = ["\n".join(f"- **{name}**: no comparison; {reason}." for name, reason in reasons.items() if reason)]
    raw, numbers = [], set()
    for block in blocks:
        if reasons[block.name]:
            continue
        table, rows = tables.compared(block, paper)
        raw += rows
        numbers |= set(tables_of([g.row for g in block.groups]))
        unprinted = [g.label for g in block.groups if g.row.paper_row is None]
        others = [why_not_group(g, paper) for g in block.groups if g.row.paper_row]
        parts += [f"### {block.name}", "Reported: as printed, with the table and the paper's name of the method; "
                  "readings of one method stand beside the same number. Difference: reproduced at ID level (as the "
                  "paper counts) minus reported. No verdict: no test stands behind it.", table,
                  f"The paper prints no row for {', '.join(unprinted)}." if unprinted else "",
                  "\n".join(f"- Left out: {r}." for r in others if r)]
    out.text("tables/beside_the_paper.csv", tables.csv_text(tables.COMPARED_HEADER, raw))
    if raw:
        notes = [f["text"].strip() for f in paper.findings if numbers & set(f["tables"])]
        parts.append("To know about the printed tables: " + " ".join(notes))
    return parts


def slug(name: str) -> str:
    """A block's name as part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _figures(blocks: list[Block], paper: Paper | None, out: _Writer) -> list[str]:
    parts, look = [], figures.looks(blocks)
    for block in blocks:
        drawn = {"results": ("Recall@10 and NDCG@10 by method", figures.results_figure(block, look, paper)),
                 "curves": ("validation NDCG@10 by epoch", figures.curves_figure(block, look))}
        for name, (caption, files) in drawn.items():
            if files is None:
                continue
            for kind, content in files.items():
                out.data(f"figures/{name}-{slug(block.name)}.{kind}", content)
            stem = f"figures/{name}-{slug(block.name)}"
            parts.append(f"![{block.name}: {caption}]({stem}.png)\n\n{block.name}: {caption} ([SVG]({stem}.svg)).")
    return parts


def _pruning(suite: Suite, blocks: list[Block], paper: Paper | None, diagnoses: dict[str, Diagnosis],
             out: _Writer) -> list[str]:
    """What beam search throws away, or how to measure it; [] where nothing generates."""
    if not any(g.row.backbone for b in blocks for g in b.groups):
        return []
    every = [pruning.searched(block, diagnoses) for block in blocks]
    found = [one for one in every if one]
    parts = ["## What beam search throws away", *pruning.section(suite, blocks, every)]
    parts_of = {one.block.name: pruning.block_tables(one) for one in found}
    if not found:
        return parts
    for picture in pruning_figures.pictures(suite, found, figures.looks(blocks), paper):
        stem = f"figures/{slug(f'{picture.name} {picture.block}')}"
        for kind, content in (picture.files or {}).items():
            out.data(f"{stem}.{kind}", content)
        parts_of.setdefault(picture.block, []).append(
            f"![{picture.title}]({stem}.png)\n\n{picture.text} ([SVG]({stem}.svg))." if picture.files else picture.text)
    out.text("tables/pruning.csv", tables.csv_text(
        pruning.CSV_HEADER, [row for one in found for row in pruning.csv_rows(one)]))
    return [*parts, *(text for name in parts_of for text in parts_of[name])]


def _efficiency(blocks: list[Block], out: _Writer) -> list[str]:
    out.text("tables/efficiency.csv", tables.csv_text(
        cost.EFFICIENCY_HEADER, [row for b in blocks for row in cost.efficiency_rows(b)]))
    parts = ["Means over seeds, as measured in the runs; compare times only between rows of the same device and "
             "threads. Training counts the first stage, which is also shown by itself; \"3 + 1\" epochs are those of "
             "two stages. Positions are the tokens that the decoder was run over, in all stages, with and without "
             "gradient, as multiples of those of cross-entropy on the same backbone: they do not depend on the "
             "machine. Memory is the peak of the run's own process. Unrounded: "
             "[tables/efficiency.csv](tables/efficiency.csv)."]
    for block in blocks:
        parts += [f"### {block.name}", cost.efficiency(block)]
    return parts


def _budget(blocks: list[Block]) -> list[str]:
    """Which rows had equal budgets, from the records, and how settings were found, from the profiles."""
    parts = ["Optimiser steps as recorded, of all stages. A first stage is part of its row's budget, and its time is "
             "counted, although rows that share one train it once."]
    for block in blocks:
        parts += [f"**{block.name}**:", cost.budget(block)]
    return [*parts, cost.tuning(blocks)]


def _grids(suite: str, results: Path | None, suites: Path | None) -> list[str]:
    """What the grids of a suite, and of those that include it, were estimated to take; [] where nothing was."""
    around = [name for name in suite_names(suites) if suite in (name, *load_suite(name, suites).includes)]
    table = cost.grids(cost.read_plan(results / cost.PLAN), around) if results else ""
    return ["## What the grids cost", "Estimates of `plan --save`: every run of a grid from nothing, trained to its "
            "last epoch, so upper bounds. Runs that two suites share are counted in both.", table] if table else []


def _about(blocks: list[Block], out: _Writer) -> list[str]:
    out.text("tables/data.csv", tables.csv_text(about.DATA_HEADER, about.data_rows(blocks)))
    out.text("tables/tokenizers.csv", tables.csv_text(about.TOKENIZER_HEADER, about.tokenizer_rows(blocks)))
    tokenizers = about.tokenizer_table(blocks)
    parts = ["### Data", about.data_table(blocks),
             "\n".join(f"- **{b.name}**: {about.rules(b)}" for b in blocks)]
    parts += ["### Semantic IDs", tokenizers] if tokenizers else []
    parts += ["### Settings", "Every trained method keeps the epoch with the best validation NDCG@10, measured with "
              "the ranking used at test, unless its training.selection says otherwise."]
    for block in blocks:
        seeds = ", ".join(str(s) for s in block.seeds) or "none (nothing is random)"
        parts += [f"**{block.name}**, seeds {seeds}:", about.settings(block)]
    return [*parts, "### Machines and versions", about.machines(blocks), about.code_note(blocks)]


def _not_covered(suite: Suite, blocks: list[Block], paper: Paper) -> list[str]:
    rows, done, total = coverage(suite, blocks, paper)
    header = ["Table", "Backbone", "Method", "Our row", *(f"{t} ({ours})" for ours, t in paper.datasets.items())]
    numbers = tables_of(suite.rows)
    return [f"{done} of the {total} results of Table{'s' if len(numbers) > 1 else ''} {' and '.join(numbers)} (a "
            "backbone and method on a dataset) have been run with the paper's data and settings. \"Other settings\": "
            "run, but not as the paper does.",
            tables.pipe(header, rows, numeric_from=len(header))]


def _index(reports: Path, suites: Path | None) -> None:
    """List the reports that lie in the folder, with the tables of each and the best of every table."""
    lines = ["# Reports", ""]
    for name in suite_names(suites):
        if (reports / name / "report.md").exists():
            lines.append(f"- [{load_suite(name, suites).title}]({name}/report.md)")
            lines += [f"  - {line}" for line in _contents(reports / name / "tables" / "results.csv")]
    write_atomically(reports / "index.md", ("\n".join(lines) + "\n").encode())


def _contents(path: Path) -> list[str]:
    """One line a block, from a report's own table, as the index may list reports whose records are not at hand."""
    if not path.exists():
        return []
    blocks: dict[str, list[dict[str, str]]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            blocks.setdefault(row["block"], []).append(row)
    lines = []
    for name, rows in blocks.items():
        count = len({r["method"] for r in rows})
        scored = [r for r in rows if r["metric"] == METRIC and r["profile"] != "smoke"]
        line = f"{name}: {count} method{'s' if count > 1 else ''}"
        if scored:
            best = max(scored, key=lambda r: float(r["mean"]))
            line += f"; best {tables.title_of(METRIC)} {float(best['mean']):.4f}, {best['method']}"
        lines.append(line)
    return lines
