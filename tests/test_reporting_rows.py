"""Which records stand in one row, which rows in one table, and which runs are in none."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_bench.cli import main
from genrec_bench.contracts import Rankings
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.experiments.identity import method
from genrec_bench.reporting import markdown
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.markdown import render_suite
from genrec_bench.reporting.matching import other_runs, row_numbers
from genrec_bench.reporting.papers import load_paper
from genrec_bench.reporting.printed import why_not
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results.records import RecordStore, RunRecord
from tests.small_records import SEEDS, all_records, contents, record_of, suite_record, table_rows, unseeded_elsewhere

CE, POINTWISE, SASREC = "TIGER + cross-entropy", "TIGER + APAO-Pointwise", "SASRec (RecBole, CE)"
LABELS = ["Popularity", "Item-kNN", SASREC, CE]
TRIAL = {"training": {"epochs": 1, "learning_rate": 1e-6}}


def trials(seeds: Sequence[int] = (0,), label: str = CE, overrides: Any = None) -> list[RunRecord]:
    """Runs of a row that `--set` has changed, with a metric that nothing else has."""
    return [suite_record(label, s, 0.0123, overrides=overrides or TRIAL) for s in seeds]


def test_nothing_different_is_averaged():
    """Runs of other sizes, epochs or rules are in no row; those of another profile are in a block of their own."""
    base = [record_of("ml-100k", "tiger", s) for s in SEEDS]
    smoke = record_of("ml-100k", "tiger", 0, profile="smoke")
    changed = [record_of("ml-100k", "tiger", 0, overrides=overrides) for overrides in (
        {"split": {"train_targets_per_user": 5}}, {"evaluation": {"max_k": 12}}, {"training": {"epochs": 7}},
        {"decoding": {"num_beams": 30}}, {"tiger": {"width": 48}})]
    blocks = arrange(load_suite("apao"), [*base, smoke, *changed])
    assert [(b.name, [(g.label, g.seeds) for g in b.groups]) for b in blocks] == [
        ("ml-100k, profile quick", [(CE, (0, 1, 2))]), ("ml-100k, profile smoke", [(CE, (0,))])]


def test_other_semantic_ids_are_another_row():
    records = [replace(r, identity={**r.identity, "semantic_ids_fingerprint": ids * 32})
               for r, ids in zip((record_of("ml-100k", "tiger", s) for s in SEEDS), ("ab", "ab", "cd"), strict=True)]
    block, = arrange(load_suite("apao"), records)
    assert [(g.label, g.seeds) for g in block.groups] == [
        (f"{CE} (semantic IDs abababab)", (0, 1)), (f"{CE} (semantic IDs cdcdcdcd)", (2,))]


def test_a_custom_folder_is_no_papers_dataset(tmp_path):
    """The folder is named like the paper's dataset, and its label is that name, as planning a run sets it."""
    folder = tmp_path / "apao_office"
    folder.mkdir()
    (folder / "x.inter.json").write_text("{}")
    configs = expand(Selection("apao", "paper", datasets=(str(folder),), baselines=(), seeds=(0,)))
    config = next(c for c in configs if c.label == CE)
    assert config.dataset.name == "folder" and config.dataset.label == "apao_office"
    paper = record_of("apao_office", "tiger", 0)
    own = replace(paper, run_id="own", method=method(config), config=config.to_dict(),
                  identity={**paper.identity, "dataset": {"name": "folder"}})
    assert own.dataset == "apao_office"
    blocks = {b.name: b for b in arrange(load_suite("apao"), [paper, own])}
    assert list(blocks) == ["apao_office, profile paper", "apao_office (folder), profile paper"]
    theirs, block = blocks.values()
    assert block.dataset == "apao_office (folder)" and why_not(theirs, load_paper("apao")) == ""
    assert "not among the paper's datasets" in why_not(block, load_paper("apao"))


def test_methods_without_randomness_stand_in_every_profile():
    suite, records = load_suite("apao"), unseeded_elsewhere()
    paper, quick = arrange(suite, records)
    assert (paper.profile, quick.profile) == ("paper", "quick")
    assert [[g.label for g in b.groups] for b in (paper, quick)] == [LABELS, LABELS]
    assert why_not(paper, load_paper("apao")) == ""
    only_paper = [r for r in records if r.profile == "paper" or r.label in LABELS[:2]]
    block, = arrange(suite, only_paper)
    assert block.profile == "paper" and len(block.groups) == 4
    alone, = arrange(suite, [r for r in only_paper if r.label in LABELS[:2]])
    assert alone.profile == "quick" and len(alone.groups) == 2


@pytest.mark.parametrize(("part", "value"), [("split_fingerprint", "other"), ("engine", 1), ("dataset", "other")])
def test_methods_without_randomness_join_no_other_data(part, value):
    tiger = record_of("apao_office", "tiger", 0, profile="quick")
    knn = record_of("apao_office", "item_knn", 0, profile="quick")
    both, = arrange(load_suite("apao"), [tiger, knn])
    assert [g.row.key for g in both.groups] == ["item_knn", "tiger+cross_entropy"]
    other = replace(knn, identity={**knn.identity, part: value})
    assert sorted([g.row.key for g in b.groups] for b in arrange(load_suite("apao"), [tiger, other])) == [
        ["item_knn"], ["tiger+cross_entropy"]]


ROWS_IN_NUMBERS = """
[suite]
name = "numbers"
title = "Rows that differ in a number"
""" + "".join(f"""
[[row]]
label = "{label}"
backbone = {{ name = "tiger"{width} }}
objective = [{objective}]
{more}
""" for label, width, objective, more in (
    ("CE", "", '{ name = "cross_entropy" }', ""),
    ("CE, width 48", ", width = 48", '{ name = "cross_entropy" }', ""),
    ("CE, given IDs", "", '{ name = "cross_entropy" }', 'tokenizer = { name = "given" }'),
    ("MSL 3", "", '{ name = "msl", tau = 3.0 }', ""),
    ("MSL 2", "", '{ name = "msl", tau = 2.0 }', ""),
    ("CE + MSL", "", '{ name = "cross_entropy" }, { name = "msl", tau = 2.0 }', ""),
    ("CE + half MSL", "", '{ name = "cross_entropy" }, { name = "msl", tau = 2.0, weight = 0.5 }', "")))


def numbered(tmp_path: Path, *variants: dict) -> list[tuple[str, int]]:
    """(label, number of seeds) of the rows that records of one seed with these settings make."""
    (tmp_path / "numbers.toml").write_text(ROWS_IN_NUMBERS)
    blocks = arrange(load_suite("numbers", tmp_path), [record_of("ml-100k", "tiger", 0, **v) for v in variants])
    return [(g.label, len(g.records)) for block in blocks for g in block.groups]


def msl(*parts, **settings) -> dict:
    return {"objective": (*({"name": p} for p in parts), {"name": "msl", **settings})}


def test_rows_that_differ_in_a_number(tmp_path):
    """Every record in its own row, however a number is written; what no row has is in none."""
    assert numbered(tmp_path, {}, {"backbone": {"name": "tiger", "width": 48}}, {"tokenizer": {"name": "given"}},
                    msl(tau=2.0), msl(tau=3.0), msl("cross_entropy", tau=2.0),
                    msl("cross_entropy", tau=2.0, weight=0.5)) == [
        (label, 1) for label in ("CE", "CE, width 48", "CE, given IDs", "MSL 3", "MSL 2", "CE + MSL", "CE + half MSL")]
    assert numbered(tmp_path, msl("cross_entropy", tau=2.0, weight=1)) == [("CE + MSL", 1)]
    assert numbered(tmp_path, msl(tau=4.0), msl("cross_entropy", tau=2.0, weight=0.25),
                    msl("cross_entropy", tau=5.0, weight=0.5), {"backbone": {"name": "tiger", "width": 32}}) == []
    keys = [row.key for row in load_suite("numbers", tmp_path).rows]
    assert len(set(keys)) == 7 and keys[0] == "tiger+cross_entropy"


@pytest.mark.parametrize(("suite", "profile", "dataset"), [
    ("apao", "quick", "ml-100k"), ("bear-sid", "quick", "ml-100k"), ("apao", "paper", "apao_office")])
def test_every_run_of_a_suite_finds_its_own_row(suite, profile, dataset):
    """Best values of a dataset, sweeps and readings that differ in one word or number are told apart."""
    rows = load_suite(suite).rows
    configs = [c for c in expand(Selection(suite, profile, datasets=(dataset,), seeds=(4,), grid="full"))
               if not c.label.endswith(": first stage")]
    assert len(configs) > 25
    numbers = row_numbers(load_suite(suite), profile, record_of(dataset, "tiger", 4))
    for config in configs:
        row = rows[numbers[method(config)]]
        assert row.label == config.label if row.label else row.baseline == config.baseline.name


def test_records_find_their_row():
    found = {}
    for block in arrange(load_suite("apao"), all_records()):
        for group in block.groups:
            found.setdefault(group.row.key, []).extend(group.records)
    assert {key: {r.label for r in records} for key, records in found.items()} == dict(zip(
        ("popularity", "item_knn", "sasrec", "tiger+cross_entropy"), ({label} for label in LABELS), strict=True))
    rows = {row.key: row for row in load_suite("apao").rows}
    assert len(found["sasrec"]) == 6 and not rows["popularity"].seeded and rows["sasrec"].seeded


# Runs that `--set` has changed

@pytest.fixture
def undrawn(monkeypatch):
    """Reports without pictures, where only the text is looked at."""
    monkeypatch.setattr(markdown, "plates", lambda suite=None, paper=None: [])


def stored(folder: Path, records: list[RunRecord]) -> Path:
    """The records with ranks of 60 users, of which APAO finds more."""
    for record in records:
        hit = np.random.default_rng(record.seed).random(60) < (0.6 if "APAO" in record.label else 0.1)
        ranks = Rankings(hit.astype(int), np.ones(60, dtype=int), hit.astype(int))
        RecordStore(folder).write(record, ranks, ranks)
    return folder


def whole() -> list[RunRecord]:
    """Two rows and a baseline, whole, on ml-100k under profile quick."""
    return [*(suite_record(label, s, 0.05) for label in (CE, POINTWISE) for s in SEEDS),
            *(record_of("ml-100k", "sasrec", s) for s in SEEDS)]


def comparisons(folder: Path, records: list[RunRecord], overrides: Any = None) -> list[tuple]:
    found = ReportData.of(load_suite("apao"), records, folder, overrides).families
    return [(one.family.name, one.profile, len(one.tests), [(t.group.label, t.p_holm) for t in one.tests], one.absent)
            for one in found]


@pytest.mark.parametrize("more", [
    lambda: trials(), lambda: trials((0, 1, 2)), lambda: trials((7,)), lambda: trials((0,), POINTWISE),
    lambda: [record_of("ml-100k", "sasrec", 9, overrides={"sasrec": {"hidden_size": 32}})]])
def test_a_changed_run_moves_no_pre_registered_comparison(tmp_path, more):
    """Neither its numbers nor how many tests there are, on whichever seeds it was run."""
    before = comparisons(stored(tmp_path, whole()), whole())
    records = [*whole(), *more()]
    assert comparisons(stored(tmp_path, records), records) == before and sum(count for _, _, count, *_ in before) > 1
    assert contents(arrange(load_suite("apao"), records)) == contents(arrange(load_suite("apao"), whole()))


def test_rows_are_tested_on_the_seeds_that_both_have(tmp_path):
    """A row that lacks its third seed is tested on two, as if the other had no third; runs of one epoch fill no gap."""
    records = [r for r in whole() if (r.label, r.seed) != (CE, 2)] + trials((0, 1, 2))
    fewer = [r for r in whole() if r.seed != 2]
    stored(tmp_path, [*records, *whole()])
    one, other = ([t for part in ReportData.of(load_suite("apao"), some, tmp_path).families for t in part.tests
                   if CE in (t.group.label, t.against.label)] for some in (records, fewer))
    assert one and [(t.seeds, t.comparison) for t in one] == [((0, 1), t.comparison) for t in other]
    assert {t.left for t in one if t.against.label == CE} == {((2,), ())} and not any(map(any, (t.left for t in other)))


@pytest.mark.usefixtures("undrawn")
def test_a_changed_run_is_listed_with_what_differs(tmp_path):
    records = [*whole(), *trials(), record_of("ml-100k", "sasrec", 0, overrides={"sasrec": {"hidden_size": 32}})]
    page = render_suite("apao", records, tmp_path / "reports")
    before, after = (page.parent / "appendix.md").read_text().split("## Other runs")
    listed = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in after.splitlines()
              if line.startswith("| ")}
    usual = whole()[0].config["training"]
    assert listed[records[-2].run_id] == [
        "ml-100k", "quick", CE, "0", "0.0123",
        f"training.epochs = 1 (row: {usual['epochs']}), training.learning_rate = 1e-06 (row: "
        f"{usual['learning_rate']})"]
    assert listed[records[-1].run_id][-1] == "baseline.hidden_size = 32 (row: 64)" and len(listed) == 3  # a header
    assert "0.0123" not in before
    other = render_suite("apao", whole(), tmp_path / "b")
    assert before.strip() == (other.parent / "appendix.md").read_text().strip()
    assert page.read_text() == other.read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_report_of_changed_rows_has_them_under_their_settings(tmp_path):
    """`run --set` shows the rows with what was set, says so, tests nothing, and has no run of a row that is
    changed."""
    records = [*whole(), *trials((0, 1, 2)), *trials((0, 1, 2), POINTWISE)]
    folder = stored(tmp_path / "results", records)
    page = render_suite("apao", records, tmp_path / "reports", results=folder, overrides=TRIAL)
    text, more = page.read_text(), (page.parent / "appendix.md").read_text()
    assert text.split("\n")[2].startswith("From 9 runs. Profile: quick: ") and (
        "Changed by `--set`: training.epochs = 1, training.learning_rate = 1e-06; so no comparison here is a "
        "declared one.") in text
    rows = table_rows(more, "### ml-100k, profile quick: all metrics")
    assert {name: (cells[0], cells[5]) for name, cells in rows.items()} == {
        SASREC: ("3", "**0.0610 ± 0.0010**"), CE: ("3", "0.0123 ± 0.0000"), POINTWISE: ("3", "0.0123 ± 0.0000")}
    assert "## Declared comparisons" not in text + more
    assert "epochs = 1" in more.split("## Settings, data and machines")[1] and "## Other runs" not in more
    assert comparisons(folder, records, TRIAL) == []


def test_why_a_run_is_in_no_row():
    """What is different, or why nothing can be said."""
    suites = [load_suite("apao"), load_suite("bear-sid")]
    plain = whole()[0]
    own = replace(plain, run_id="b", profile="laptop", config={**plain.config, "profile": "laptop"})
    named = suite_record(CE, 0, 0.1, overrides={"cross_entropy": {"reduction": "sum", "weight": 0.5}})
    named = replace(named, label="Mine")
    older = replace(plain, run_id="c", method="0" * 16)
    assert [text for _, text in other_runs([plain, own, named, older], suites)] == [
        "there is no profile laptop", "no row of a suite has this label",
        "versions of components, or of the engine"]


@pytest.mark.usefixtures("undrawn")
def test_the_command_that_set_something_reports_it_so(tmp_path, toy_folder):
    """What `run --set` made is in its report under its settings; a later report of the plain rows only lists it."""
    words = ["run", "--suite", "apao", "--profile", "smoke", "--datasets", str(toy_folder), "--baselines", "item_knn",
             "--results", str(tmp_path / "results")]
    report = tmp_path / "results" / "reports" / "apao" / "report.md"
    assert main([*words, "--set", "item_knn.neighbours=5"]) == 0
    appendix = report.with_name("appendix.md")
    assert "Changed by `--set`: item_knn.neighbours = 5;" in report.read_text()
    text = appendix.read_text()
    assert "neighbours = 5" in text.split("### Settings")[1] and "## Other runs" not in text
    assert main(words) == 0
    before, after = appendix.read_text().split("## Other runs")
    assert "Changed by" not in report.read_text() and "neighbours" not in before.split("### Settings")[1]
    assert "baseline.neighbours = 5 (row: 0)" in after and after.count("Item-kNN") == 1
