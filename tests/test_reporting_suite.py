"""Reports of many rows: two backbones, rows of two stages, printed numbers that rows share, what grids cost."""

import csv
from pathlib import Path

import pytest

from genrec_bench.core.errors import UserError
from genrec_bench.reporting import cost, markdown, suite_page, tables
from genrec_bench.reporting.figures import curves
from genrec_bench.reporting.figures.style import looks
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.markdown import render_suite
from genrec_bench.reporting.papers import load_paper
from genrec_bench.reporting.printed import comparable_rows, coverage
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results.records import RunRecord
from tests.small_records import SEEDS, record_of, suite_record, table_rows

CE, CONTROL = "{} + cross-entropy", "{} + CE → CE"
SASREC = "SASRec (RecBole, CE)"
SHARED = "TIGER + APAO-Pointwise"
REPORTS = Path(__file__).resolve().parents[1] / "reports"


def of_three(label: str, value: float, **more) -> list[RunRecord]:
    """Three seeds with a mean of `value` and a sample deviation of 0.001."""
    return [suite_record(label, s, value + 0.001 * (s - 1), **more) for s in SEEDS]


def two_stages(label: str, value: float, firsts: list[RunRecord], **more) -> list[RunRecord]:
    """The same after the runs of a first stage."""
    return [suite_record(label, s, value + 0.001 * (s - 1), after=first, **more)
            for s, first in zip(SEEDS, firsts, strict=True)]


def suite_records() -> list[RunRecord]:
    """Rows above, below and within the spread of cross-entropy and of the control, on two backbones."""
    tiger, llama = of_three(CE.format("TIGER"), 0.031), of_three(CE.format("Llama"), 0.040)
    return [*tiger, *llama, *of_three("TIGER + MSL", 0.040), *of_three(SHARED, 0.0325),
            *two_stages("TIGER + CE → DPO", 0.021, tiger, steps=100, positions=(50, 25)),
            *two_stages("TIGER + CE → S-DPO", 0.0345, tiger, steps=100, positions=(700, 700)),
            *two_stages(CONTROL.format("TIGER"), 0.032, tiger, steps=100, positions=(50, 0)),
            *of_three("Llama + MSL", 0.030), *two_stages("Llama + CE → DPO", 0.050, llama),
            record_of("ml-100k", "popularity", 0), *(record_of("ml-100k", "sasrec", s) for s in SEEDS)]


@pytest.fixture(scope="module")
def block():
    """The one block of `suite_records`."""
    return arrange(load_suite("apao"), suite_records())[0]


def test_only_rows_that_state_the_same_have_one_key():
    for suite in ("apao", "bear-sid"):
        stated = {row.key: row.stated for row in load_suite(suite).rows}
        assert all(row.stated == stated[row.key] for row in load_suite(suite).rows)
        assert len(stated) > 20


def test_backbones_stand_together(block):
    assert {family: [g.name for g in groups] for family, groups in block.families().items()} == {
        "Baselines": ["Popularity", SASREC],
        "TIGER": ["cross-entropy", "MSL", "CE → DPO", "CE → S-DPO", "APAO-Pointwise", "CE → CE"],
        "Llama": ["cross-entropy", "MSL", "CE → DPO"]}
    assert [g.label for g in block.groups] == [g.label for groups in block.families().values() for g in groups]
    assert block.cross_entropy("Llama").label == "Llama + cross-entropy"
    assert block.cross_entropy("Baselines") is None


def test_differences_from_cross_entropy_on_the_same_backbone(block):
    """Means 0.031 and 0.040; without ranks there is no interval. A baseline is measured by the first backbone."""
    shown = suite_page._differences(ReportData(load_suite("apao"), (block,)), block, block.groups)
    assert shown == {"Popularity": "-35.5", SASREC: "+96.8", "TIGER + cross-entropy": "reference",
                     "TIGER + MSL": "+29.0", "TIGER + CE → DPO": "-32.3", "TIGER + CE → S-DPO": "+11.3",
                     SHARED: "+4.8", "TIGER + CE → CE": "+3.2", "Llama + cross-entropy": "reference",
                     "Llama + MSL": "-25.0", "Llama + CE → DPO": "+25.0"}


def test_a_long_table_has_headings(monkeypatch, block):
    assert tables.results(block).count("| Method") == 1
    monkeypatch.setattr(tables, "LONG", 10)
    text = tables.results(block)
    assert [line for line in text.splitlines() if line.startswith("**")] == ["**Baselines**", "**TIGER**", "**Llama**"]
    best = {family: [name for name, cells in table_rows(text, f"**{family}**").items() if "**" in cells[5]]
            for family in block.families()}
    assert best == {"Baselines": [SASREC], "TIGER": ["TIGER + MSL"], "Llama": ["Llama + CE → DPO"]}


def test_both_stages_are_counted(block):
    """30 s and 12 epochs each stage; positions 100 before, then 50 with and 25 without gradient."""
    rows = table_rows("\n" + cost.efficiency(block), "")
    assert rows["TIGER + cross-entropy"][2:8] == ["12 / 11", "1.00", "0.00", "30.0", "–", "2.50"]
    assert rows["TIGER + CE → DPO"][2:8] == ["12 + 12 / 11 + 11", "1.50", "0.25", "60.0", "30.0", "2.50"]
    assert rows["TIGER + CE → S-DPO"][3:5] == ["8.00", "7.00"]
    assert rows[SASREC][3:7] == ["–", "–", "30.0", "–"] and rows["Popularity"][2:8] == ["–"] * 6
    row = dict(zip(cost.EFFICIENCY_HEADER, next(r for r in cost.efficiency_rows(block) if r[2] == "TIGER + CE → DPO"),
                   strict=True))
    assert (row["steps"], row["first_stage_epochs"], row["first_stage_seconds"]) == (400, 12, 30.0)
    assert (row["positions_with_gradient"], row["positions_without_gradient"]) == (150, 25)
    assert row["histories_with_gradient"] is None


def test_budgets_are_told_apart(block):
    rows = table_rows("\n" + cost.budget(block), "")
    assert rows == {
        f"Popularity, {SASREC}": ["not recorded", "–", "–", "–"],
        "TIGER + cross-entropy, TIGER + MSL, TIGER + APAO-Pointwise, Llama + cross-entropy, Llama + MSL":
            ["300", "64", "–", "–"],
        "TIGER + CE → DPO, TIGER + CE → S-DPO, TIGER + CE → CE, Llama + CE → DPO":
            ["400 to 600", "64", "300", "up to +300 (+100 %)"]}


def test_what_the_profile_says_of_tuning(monkeypatch, block):
    texts = {"quick": {"tuning": "Nine trials\n  each."}, "paper": {}}
    monkeypatch.setattr(cost, "load_profile", texts.get)
    assert cost.tuning([block]) == [("quick", "Nine trials each.")]
    other = arrange(load_suite("apao"), [record_of("ml-100k", "tiger", 0, profile=p) for p in ("paper", "mine")])
    assert cost.tuning(other) == []


def test_rows_that_share_a_printed_one():
    """Office, printed: 0.0337 for APAO-Pointwise (Table 1) and 0.0116 for S-DPO in one stage (Table 3)."""
    suite, paper = load_suite("apao"), load_paper("apao")
    one_stage = [row.label for row in suite.rows if row.paper_row == ("TIGER", "S-DPO (1-stage)")]
    pointwise = [row.label for row in suite.rows if row.paper_row == ("TIGER", "APAO-Pointwise")]
    assert len(one_stage) == 3 and pointwise == [SHARED, f"{SHARED}, as released"]
    best = {"weight": paper.cell(table=5, dataset="apao_office", backbone="TIGER", method="APAO-Pointwise",
                                 metric="beta"),
            "eta": paper.cell(table=5, dataset="apao_office", backbone="TIGER", method="APAO-Pointwise", metric="eta")}
    records = [suite_record(one_stage[0], 0, 0.02, dataset="apao_office"),
               suite_record(one_stage[1], 0, 0.03, dataset="apao_office")]
    for label in pointwise:
        *before, last = next(row for row in suite.rows if row.label == label).stated["objective"]
        values = best if label == SHARED else {"weight": best["weight"]}  # the scripts' eta is 0
        records.append(suite_record(label, 0, 0.03, dataset="apao_office", objective=[*before, {**last, **values}]))
    block, = arrange(suite, records)
    found = [(g.label, table, value) for g, table, m, value in comparable_rows(block, paper) if m == "ndcg@10"]
    assert found == [(label, table, value) for labels, table, value in
                     ((pointwise[:1], "1", 0.0337), (one_stage[:2], "3", 0.0116), (pointwise[1:], "1", 0.0337))
                     for label in labels]
    lines, done, total = coverage(suite, [block], paper)
    assert (done, total) == (2, 64)  # 13 rows of Table 1 on 4 datasets, 6 more of Table 3 on 2
    assert [line[3:] for line in lines if line[2] == "S-DPO (1-stage)" and line[1] == "TIGER"] == [
        [label, state, "–", "no record", "–"] for label, state in zip(
            one_stage, ("reproduced", "reproduced", "no record"), strict=True)]


def test_an_objective_has_one_colour_and_a_row_one_look(block):
    look = {g.label: looks([block])[g.row.key] for g in block.groups}
    for name in ("cross-entropy", "MSL", "CE → DPO"):
        assert look[f"TIGER + {name}"] == look[f"Llama + {name}"]
    for groups in block.families().values():
        assert len({look[g.label] for g in groups}) == len(groups)


def test_a_second_stage_is_drawn_after_the_first(block):
    """The first stage had 12 epochs and was kept at 0.030, 0.031, 0.032."""
    chart = curves.curves_figure(ReportData(load_suite("apao"), (block,)), block)
    assert list(dict.fromkeys(p["panel"] for p in chart.points)) == ["Baselines", "TIGER", "Llama"]
    lines = {name: [(p["at"], p["value"]) for p in chart.points if (p["panel"], p["method"]) == ("TIGER", name)]
             for name in ("CE → CE", "MSL")}
    assert [epoch for epoch, _ in lines["CE → CE"]] == list(range(12, 25))
    assert [value for _, value in lines["CE → CE"]] == pytest.approx([0.031, *[0.032] * 12])
    assert [epoch for epoch, _ in lines["MSL"]] == list(range(1, 13))


def test_report_of_many_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(markdown, "plates", lambda suite=None, paper=None: [])
    plan = tmp_path / cost.PLAN
    plan.write_text(",".join(cost.PLAN_HEADER) + "\nall,quick,full,ml-100k,402,36000,cpu,2\n"
                    "apao,quick,core,ml-100k,30,1800,cpu,1\nbear-sid,quick,core,ml-100k,15,900,cpu,1\n")
    page = render_suite("apao", suite_records(), tmp_path, results=tmp_path)
    assert [line for line in page.read_text().splitlines() if line.startswith("## ")] == [
        "## What APAO claims", "## Results", "## Declared comparisons"]
    text = (page.parent / "appendix.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Results in full", "## How this was obtained", "## Beside the paper", "## Declared comparisons",
        "## What beam search prunes", "## Efficiency", "## Budget and tuning", "## What the grids cost",
        "## Settings, data and machines"]
    lines = text.split("## What the grids cost", 1)[1].split("## ")[0].splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if "ml-100k" in line]
    assert cells == [["all", "quick", "full", "ml-100k", "cpu", "402", "10.0"],
                     ["apao", "quick", "core", "ml-100k", "cpu", "30", "0.5"]]
    assert "- **All 6 rows of TIGER** tokenizer `rq_kmeans`: levels = 2; " in text
    assert ("- **TIGER + CE → CE** training: epochs = 1, learning_rate = 0.001; objective 1 `cross_entropy`; first "
            "stage: take = weights; first stage, training: epochs = 4, learning_rate = 0.003; first stage, objective 1 "
            "`cross_entropy`.") in text
    with open(tmp_path / "apao" / "tables" / "efficiency.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == cost.EFFICIENCY_HEADER
    render_suite("apao", suite_records(), tmp_path / "b", results=tmp_path / "none")
    assert "## What the grids cost" not in (tmp_path / "b" / "apao" / "appendix.md").read_text()


def test_a_page_that_would_be_too_long_leaves_its_last_tables_to_the_appendix(monkeypatch, tmp_path):
    monkeypatch.setattr(markdown, "plates", lambda suite=None, paper=None: [])
    records = [r for name in ("ml-100k", "apao_office") for r in of_three(CE.format("TIGER"), 0.031, dataset=name)]
    page = render_suite("apao", records, tmp_path)
    assert "### ml-100k, profile quick\n" in page.read_text()
    monkeypatch.setattr(suite_page, "MOST_WORDS", len(page.read_text().split()) - 10)
    text = render_suite("apao", records, tmp_path).read_text()
    assert "### apao_office, profile paper\n" in text and "### ml-100k, profile quick\n" not in text
    assert "(appendix.md#results-of-more-data-sets): ml-100k, profile quick." in text
    assert "### ml-100k, profile quick\n" in (page.parent / "appendix.md").read_text()


@pytest.mark.parametrize("page", sorted(REPORTS.glob("*/report.md")), ids=lambda page: page.parent.name)
def test_a_committed_report_is_read_in_two_minutes(page):
    assert len(page.read_text(encoding="utf-8").split()) <= 2500


@pytest.mark.parametrize("text", ["a,b\n1,2\n", ",".join(cost.PLAN_HEADER) + "\napao,quick,core,x,many,1,cpu,1\n",
                                  ",".join(cost.PLAN_HEADER) + "\napao\n"])
def test_a_damaged_plan_is_named(tmp_path, text):
    (tmp_path / cost.PLAN).write_text(text)
    with pytest.raises(UserError, match="plan.csv is not a saved plan"):
        cost.read_plan(tmp_path / cost.PLAN)


def test_an_ablation_has_its_whole_methods_best_values():
    """Every row that leaves something out of APAO, dropped prefixes too, on every dataset that has best values."""
    rows = {row.label: row for row in load_suite("apao").rows}
    for form in ("Pointwise", "Pairwise"):
        whole = rows[f"Llama + APAO-{form}"].best
        assert whole["apao_office"] != whole["apao_beauty"]
        for k in range(1, 5):
            assert rows[f"Llama + APAO-{form}, drop_prefix = {k}"].best == whole
