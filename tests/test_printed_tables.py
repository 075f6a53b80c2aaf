"""The papers' tables with our numbers: layout, cells by hand, which run stands where, Markdown, CSV and LaTeX."""

import csv
import io
import re
from collections import Counter
from dataclasses import replace

import pytest

from genrec_bench.experiments import queue
from genrec_bench.experiments.suite_files import FOLDERS
from genrec_bench.reporting import latex
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.papers import IMPROVEMENT, load_paper, paper_names
from genrec_bench.reporting.printed_tables import HEADER, paper_tables
from tests.small_records import apao, suite_record
from tests.test_papers import transcription

CE, MSL, POINT, PAIR = "CE", "MSL", "APAO-Pointwise", "APAO-Pairwise"
LABELS = {CE: "TIGER + cross-entropy", MSL: "TIGER + MSL", POINT: "TIGER + APAO-Pointwise",
          PAIR: "TIGER + APAO-Pairwise"}
QUICK = {"profile": "quick"}


def runs(method, values, **changes):
    """Runs of a method on Office under the paper's profile, one a seed, with one value for all metrics."""
    return [suite_record(LABELS[method], seed, value, dataset="apao_office", **changes)
            for seed, value in enumerate(values)]


def tables(records, better=None, overrides=None):
    found = paper_tables(load_paper("apao"), arrange(apao(), records, overrides), better=better or {})
    return {table.number: table for table in found}


def shown(table, panel, row, column):
    """The text of one cell of the Markdown."""
    lines = table.markdown.split(f"**{panel}**\n\n")[1].split("\n\n")[0].splitlines() if panel else \
        table.markdown.splitlines()
    header, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return next(cells for cells in body if row in cells)[header.index(column)]


def cell(table, method, metric, dataset="Office", backbone="TIGER"):
    return next(c for c in table.cells if (c.reported.method, c.reported.metric, c.reported.dataset,
                                           c.reported.backbone) == (method, metric, dataset, backbone))


EMPTY = {key: paper_tables(load_paper(key), []) for key in paper_names()}
EVERY = [(key, table) for key, found in EMPTY.items() for table in found]


def named(pair):
    return f"{pair[0]}-{pair[1].number}"


def in_text(c):
    """A printed number as the paper prints it, percentages as such."""
    if c.unit.endswith("percent"):
        return f"{100 * c.value:{'+' * c.relative}.{c.digits - 2}f}%"
    return f"{c.value:g}" if c.unit == "hyperparameter" else f"{c.value:,.{c.digits}f}"


@pytest.mark.parametrize("pair", EVERY, ids=named)
def test_without_runs_every_printed_number_stands_there_as_not_run(pair):
    key, table = pair
    paper = load_paper(key)
    reference = paper.layouts[table.number].kind == "reference"
    assert [c.reported for c in table.cells] == paper.of(table.number)
    count = 0 if reference else sum(not c.reported.relative for c in table.cells)
    assert table.grades == ({"not run": count} if count else {})
    bare = re.sub(r"\*\*|</?u>", "", table.markdown)
    assert all(in_text(c.reported) in bare for c in table.cells) and "not run" not in bare
    assert bare.count("– (") == (0 if reference else len(table.cells))


@pytest.mark.parametrize("pair", EVERY, ids=named)
def test_best_and_second_of_the_printed_columns(pair):
    """By sorting each column; in some tables every backbone has columns of its own. Counts, costs: no best."""
    key, table = pair
    apart = (key, table.number) in {("apao", "1"), ("apao", "3"), ("bear", "3"), ("bear", "4")}
    columns = {}
    for c in (c for c in table.cells if not c.reported.relative):
        columns.setdefault((c.reported.dataset, c.reported.metric, apart and c.reported.backbone), []).append(c)
    for column in columns.values():
        places = sorted({c.reported.value for c in column}, reverse=True)[:2]
        scores = len(column) > 1 and column[0].reported.score and table.title != "Online test, 5 % of traffic"
        assert [c.printed_place for c in column] == [
            places.index(c.reported.value) + 1 if scores and c.reported.value in places else 0 for c in column]


def test_layout_of_apao_table_1():
    table = EMPTY["apao"][0]
    assert re.findall(r"^\*\*(.*)\*\*$", table.markdown, re.M) == [
        f"{b}, {d}" for b in ("TIGER", "Llama") for d in ("Office", "Grocery", "Beauty", "Yelp")]
    assert shown(table, "Llama, Yelp", "DPO", "NDCG@10") == "– (0.0089)"
    assert shown(table, "TIGER, Office", POINT, "NDCG@10") == "– (**0.0337**)"  # two share the first place
    assert shown(table, "TIGER, Office", PAIR, "NDCG@10") == "– (**0.0337**)"
    assert shown(table, "TIGER, Office", "S-DPO", "NDCG@10") == "– (<u>0.0321</u>)"
    assert shown(table, "TIGER, Grocery", "Improvement", "NDCG@10") == "– (+3.92% [b], +3.97%)"
    assert "[b] A7: recomputes to +3.97 %." in table.notes


def test_layout_of_rankgr_table_4_is_metrics_by_variants():
    table = EMPTY["rankgr"][3]
    header = [c.strip() for c in table.markdown.splitlines()[0].strip("|").split("|")]
    assert header[:4] == ["Metric", "RankGR", "RankGR w/o IAP", "RankGR w/o IAP (change)"] and len(header) == 8
    assert shown(table, "", "Click HR@500", "RankGR w/o Both") == "– (36.05% [b])"
    assert shown(table, "", "PV HR@20", "RankGR w/o Both (change)") == "– (-17.42%)"


def test_cells_by_hand():
    """CE is 0.0292 in print; seeds 0.0290, 0.0292, 0.0294 have mean 0.0292 and SD 0.0002."""
    table = tables(runs(CE, [0.0290, 0.0292, 0.0294]) + runs(POINT, [0.0310, 0.0320, 0.0330]))["1"]
    assert shown(table, "TIGER, Office", CE, "NDCG@10") == "0.0292 ± 0.0002 (0.0292, +0.0000, exact)"
    assert shown(table, "TIGER, Office", POINT, "NDCG@10") == (
        "0.0320 ± 0.0010 (**0.0337**, -0.0017, not reproduced)")
    assert shown(table, "TIGER, Office", MSL, "NDCG@10") == "– (0.0319)"
    assert shown(table, "TIGER, Office", CE, "Recall@20") == "0.0292 ± 0.0002 (0.1013, -0.0721, not reproduced)"


def test_one_other_method_of_six_is_no_order_and_three_are():
    """Printed NDCG@10: CE 0.0292, MSL 0.0319, both forms of APAO 0.0337. Pointwise has six others."""
    two = runs(CE, [0.0290, 0.0292, 0.0294]) + runs(POINT, [0.0310, 0.0320, 0.0330])
    found = cell(tables(two)["1"], POINT, "ndcg@10")
    assert found.grade == "not reproduced"
    assert found.why == "order as printed among 1 of 6 others"
    four = tables(two + runs(MSL, [0.03, 0.03, 0.03]) + runs(PAIR, [0.05, 0.05, 0.05]))["1"]
    assert cell(four, POINT, "ndcg@10").grade == "directional"
    why = "order as printed among 3 of 6 others"
    (note,) = [note for note in four.notes if note.startswith("Directional, ")]
    assert "TIGER APAO-Pointwise on Office" in note and note.endswith(f": {why}.")


def test_an_order_that_is_turned_round_is_not_reproduced_and_names_the_ledger():
    table = tables(runs(CE, [0.0390, 0.0392, 0.0394]) + runs(POINT, [0.0310, 0.0320, 0.0330]))["1"]
    found = cell(table, POINT, "ndcg@10")
    assert found.grade == "not reproduced"
    start = ("Not reproduced, TIGER CE on Office; TIGER APAO-Pointwise on Office: another order than printed among 1 "
             "of 6 others")
    assert any(note.startswith(start) for note in table.notes)


def test_the_id_level_metric_stands_there():
    records = [replace(r, metrics={**r.metrics, "id_ndcg@10": 0.0300}) for r in runs(CE, [0.0292, 0.0292])]
    assert cell(tables(records)["1"], CE, "ndcg@10").ours.mean == pytest.approx(0.03)
    plain = [replace(r, metrics={"ndcg@10": 0.0292}) for r in runs(CE, [0.0292, 0.0292])]
    table = tables(plain)["1"]
    assert cell(table, CE, "ndcg@10").ours.mean == pytest.approx(0.0292)
    assert cell(table, CE, "recall@10").grade == "not run"  # a run without the metric is none


def test_improvement_and_the_best_of_a_column_need_all_of_its_rows_with_equal_seeds(monkeypatch):
    """Best own 0.0440 over the best baseline 0.0400 is +10%."""
    every = {CE: 0.04, MSL: 0.03, POINT: 0.044, PAIR: 0.04}
    labels = {**LABELS, **{m: f"TIGER + CE → {m}" for m in ("DPO", "DMPO", "S-DPO")}}
    records = [suite_record(labels[m], s, every.get(m, 0.02), dataset="apao_office") for m in labels for s in (0, 1)]
    table = tables(records)["1"]
    assert shown(table, "TIGER, Office", "Improvement", "NDCG@10") == "+10.00% (+4.98%)"
    assert shown(table, "TIGER, Office", POINT, "NDCG@10").startswith("**0.0440 ± 0.0000** (**0.0337**, ")
    assert [cell(table, m, "ndcg@10").place for m in (POINT, PAIR, CE, MSL)] == [1, 2, 2, 0]
    assert cell(table, IMPROVEMENT, "ndcg@10").recomputed == pytest.approx(0.0337 / 0.0321 - 1)
    lacking = tables(records[:-2])["1"]
    assert {c.place for c in lacking.cells} == {0} and cell(lacking, IMPROVEMENT, "ndcg@10").gain is None
    last = records[-1]
    monkeypatch.setattr(queue, "declared_seeds", lambda: {(last.profile, "apao_office", last.method): {0}})
    uneven = tables(records[:-1])["1"]  # its row stands, with fewer seeds than the others
    assert shown(uneven, "TIGER, Office", "S-DPO", "NDCG@10").startswith("0.0200 (")
    assert {c.place for c in uneven.cells} == {0} and cell(uneven, IMPROVEMENT, "ndcg@10").gain is None


def test_incomplete_rows_are_not_averaged():
    table = tables(runs(CE, [0.03, 0.032, 0.034]) + runs(POINT, [0.05]) + runs(PAIR, [0.06, 0.07]))["1"]
    assert shown(table, "TIGER, Office", POINT, "NDCG@10") == "0.0500 [seed 0] (**0.0337**, not comparable)"
    assert shown(table, "TIGER, Office", PAIR, "NDCG@10") == (
        "0.0600, 0.0700 [seeds 0, 1] (**0.0337**, not comparable)")
    assert cell(table, POINT, "ndcg@10").why == "seeds 1, 2 missing"
    assert cell(table, IMPROVEMENT, "ndcg@10").gain is None


def test_smoke_never_stands_in_a_table():
    records = runs(CE, [0.03, 0.03], profile="smoke")
    assert all(set(found) <= {"not run"} for found in [t.grades for t in tables(records).values()])


def test_the_paper_profile_stands_before_the_quick_one():
    quick, paper = runs(CE, [0.01, 0.01], **QUICK), runs(CE, [0.0292, 0.0292])
    assert cell(tables(quick + paper)["1"], CE, "ndcg@10").grade == "exact"
    table = tables(quick)["1"]
    found = cell(table, CE, "ndcg@10")
    assert shown(table, "TIGER, Office", CE, "NDCG@10") == "0.0100 ± 0.0000 (0.0292, not comparable)"  # no difference
    assert found.grade == "not comparable" and found.why.startswith("profile quick")


def test_runs_that_set_has_changed_are_not_comparable():
    """They are in no table but that of their own command, which says what is not the paper's."""
    faster = {"training": {"learning_rate": 0.1}}
    other = runs(CE, [0.0292, 0.0292], overrides=faster)
    assert cell(tables(other)["1"], CE, "ndcg@10").grade == "not run"
    found = cell(tables(other, overrides=faster)["1"], CE, "ndcg@10")
    assert found.grade == "not comparable" and "learning_rate is 0.1, 0.0005 under profile paper" in found.why
    both = tables([*runs(CE, [0.09, 0.09], overrides=faster), *runs(CE, [0.0292, 0.0292])])["1"]
    found = cell(both, CE, "ndcg@10")
    assert found.grade == "exact" and not found.standing.others


def test_a_custom_profile_stands_last(tmp_path, monkeypatch):
    for name in ("paper", "quick", "smoke"):
        (tmp_path / f"{name}.toml").write_bytes((FOLDERS["profile"] / f"{name}.toml").read_bytes())
    (tmp_path / "laptop.toml").write_text((tmp_path / "quick.toml").read_text().replace('"quick"', '"laptop"', 1))
    monkeypatch.setitem(FOLDERS, "profile", tmp_path)
    own, quick = runs(CE, [0.01, 0.01], profile="laptop"), runs(CE, [0.02, 0.02], **QUICK)
    assert cell(tables(own)["1"], CE, "ndcg@10").ours.mean == pytest.approx(0.01)
    assert cell(tables(own + quick)["1"], CE, "ndcg@10").ours.mean == pytest.approx(0.02)


def test_all_rows_of_a_part_are_of_one_block():
    """MSL was run quickly only: it does not stand beside the paper profile's cross-entropy."""
    table = tables(runs(CE, [0.0292, 0.0292]) + runs(MSL, [0.01, 0.01], **QUICK))["1"]
    assert cell(table, CE, "ndcg@10").grade == "exact" and cell(table, MSL, "ndcg@10").grade == "not run"


def test_of_several_rows_the_first_that_can_be_compared():
    """Pointwise and the reading of its released code share a printed row."""
    code = [suite_record(f"{LABELS[POINT]}, as released", s, 0.0337, dataset="apao_office") for s in (0, 1)]
    assert cell(tables(code)["1"], POINT, "ndcg@10").ours.mean == pytest.approx(0.0337)
    table = tables(code + runs(POINT, [0.03, 0.03]))["1"]
    found = cell(table, POINT, "ndcg@10")
    assert found.ours.mean == pytest.approx(0.03) and len(found.standing.others) == 1
    assert any(found.standing.others[0] in note and "as released" in note for note in table.notes)


def test_stars_are_for_the_declared_metric_alone():
    records = runs(CE, [0.0292, 0.0292]) + runs(POINT, [0.0337, 0.0337])
    block = arrange(apao(), records)[0]
    table = tables(records, {(block.name, LABELS[POINT]): (LABELS[CE], "SASRec")})["1"]
    starred = [(c.reported.method, c.reported.metric) for c in table.cells if c.better_than]
    assert starred == [(POINT, "ndcg@10")]
    assert r"0.0337 ± 0.0000\* (" in shown(table, "TIGER, Office", POINT, "NDCG@10")
    assert ("Star: better than TIGER + cross-entropy and SASRec in a declared comparison of ours (Holm), not the "
            "paper's test.") in table.notes
    assert not any("Star" in note for note in tables(records)["1"].notes)


def test_a_star_of_another_block_is_not_taken_over():
    records = runs(CE, [0.0292, 0.0292])
    assert not any(c.better_than for c in tables(records, {("another block", LABELS[CE]): ("X",)})["1"].cells)


def test_stars_against_other_rows_are_told_apart():
    records = runs(CE, [0.0292, 0.0292]) + runs(POINT, [0.0337, 0.0337])
    block = arrange(apao(), records)[0].name
    notes = tables(records, {(block, LABELS[POINT]): (LABELS[CE],), (block, LABELS[CE]): ("SASRec",)})["1"].notes
    assert [note.partition(" in a declared")[0] for note in notes if note.startswith("Star")] == [
        "Star (TIGER CE on Office): better than SASRec",
        "Star (TIGER APAO-Pointwise on Office): better than TIGER + cross-entropy"]


def test_counts_stand_beside_the_data_of_the_records():
    records = [replace(r, data={**r.data, "users": 4905, "items": 2420, "interactions": 53258})
               for r in runs(CE, [0.03, 0.03])]
    table = tables(records)["2"]
    assert shown(table, "", "Office", "Users") == "4,905 (4,905, exact)"
    assert shown(table, "", "Office", "Density") == "0.45% (0.45%, exact)"  # 53258 / (4905 * 2420) = 0.004487
    assert shown(table, "", "Yelp", "Items") == "– (20,033)"
    wrong = tables([replace(r, data={**r.data, "users": 4904}) for r in records])["2"]
    assert shown(wrong, "", "Office", "Users") == "4,904 (4,905, not reproduced)"
    fewer = {"split": {"max_users": 100}}
    few = [replace(r, data=records[0].data) for r in runs(CE, [0.03, 0.03], overrides=fewer)]
    assert shown(tables(few, overrides=fewer)["2"], "", "Office", "Users") == "4,905 (4,905, not comparable)"
    assert shown(tables(few + records)["2"], "", "Office", "Users") == "4,905 (4,905, exact)"


def test_costs_are_multiples_of_the_first_row_and_never_comparable():
    slow = [replace(r, timings={**r.timings, "seconds_per_epoch": 30.0}, training={**r.training, "best_epoch": 24})
            for r in runs(CE, [0.03, 0.03])]
    pair = [replace(r, timings={**r.timings, "seconds_per_epoch": 45.0}, training={**r.training, "best_epoch": 12})
            for r in runs(PAIR, [0.03, 0.03])]
    table = tables(slow + pair)["4"]
    assert shown(table, "Office", PAIR, "Seconds per epoch") == "45.0 ± 0.0, 1.50x (163, 10.87x, not comparable)"
    assert shown(table, "Office", PAIR, "Epochs") == "12.0 ± 0.0, 0.50x (58, 1.29x, not comparable)"
    assert set(table.grades) == {"not comparable", "not run"}
    assert cell(table, PAIR, "time_per_epoch").why == "another machine"


def test_recomputed_improvements_are_those_of_the_checked_list():
    """All 142, in percent to three decimals."""
    checked = transcription("improvements_check")
    wanted = Counter((row["paper"].lower(), row["table"], float(row["printed_pct"]), float(row["recomputed_pct"]))
                     for row in checked)
    found = Counter((key, table.number, round(100 * c.reported.value, 2), round(100 * c.recomputed, 3))
                    for key, table in EVERY for c in table.cells if c.recomputed is not None)
    assert len(checked) == 142 and found == wanted


@pytest.mark.parametrize("pair", EVERY, ids=named)
def test_latex_is_whole(pair):
    check_latex(pair[1].latex)


def test_latex_with_runs_is_whole_and_says_the_same():
    records = runs(CE, [0.0290, 0.0292, 0.0294]) + runs(POINT, [0.05])
    table = tables(records)["1"]
    check_latex(table.latex)
    assert r"0.0292 $\pm$ 0.0002 (0.0292, +0.0000, exact)" in table.latex
    assert r"0.0500 [seed 0] (\textbf{0.0337}, not comparable)" in table.latex
    assert r"-- (+5.19\% [a], +5.16\%)" in table.latex and table.latex.count(r"\begin{table*}") == 2


def check_latex(text):
    """Braces and environments close in order, special signs are escaped, and every row has its table's columns."""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("% needs"))
    bare = re.sub(r"\\[\\&%$#_{}]", lambda m: r"\\" if m[0] == r"\\" else "", body)
    assert body.isascii() and not re.search(r"[#_~^\"]|(?<!\{)%", bare) and bare.count("$") % 2 == 0
    depth = 0
    for sign in bare:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{([^}]*)\}", body):
        stack.append(name) if kind == "begin" else stack.remove(name) if stack[-1] == name else pytest.fail(name)
    assert not stack and body.count(r"\label") == body.count(r"\caption") == body.count(r"\begin{table*}")
    for columns, rows in re.findall(r"\\begin\{tabular\}\{(\w+)\}\n\\toprule\n(.*?)\\bottomrule", body, re.S):
        lines = [line for line in rows.splitlines() if line != r"\midrule"]
        assert len(lines) > 1 and all(line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
                                      for line in lines)


def test_escaping():
    assert latex.escape("50% & A_1 {x} ± – → $ # ~ ^ \\") == (
        r"50\% \& A\_1 \{x\} $\pm$ -- $\rightarrow$ \$ \# \textasciitilde{} \textasciicircum{} \textbackslash{}")
    assert latex.tabular(["a", "b"], [["[x]", "1"], ["*", "2"]], labels=1).count("\n{}") == 2


def test_csv_has_a_line_a_cell():
    table = tables(runs(CE, [0.0290, 0.0292, 0.0294]) + runs(POINT, [0.05]))["1"]
    lines = list(csv.DictReader(io.StringIO(table.csv)))
    assert tuple(lines[0]) == HEADER and len(lines) == 240
    by_place = {(x["dataset"], x["backbone"], x["method"], x["metric"]): x for x in lines}
    ours = by_place["Office", "TIGER", "CE", "ndcg@10"]
    assert float(ours["reproduced_mean"]) == pytest.approx(0.0292) and float(ours["sd"]) == pytest.approx(0.0002)
    assert (ours["n"], ours["seeds"], ours["grade"], ours["our_row"], ours["level"]) == (
        "3", "0 1 2", "exact", LABELS[CE], "ID-level")
    assert float(ours["delta"]) == pytest.approx(0, abs=1e-12) and float(ours["reported"]) == 0.0292
    part = by_place["Office", "TIGER", POINT, "ndcg@10"]
    assert (part["reproduced_mean"], part["delta"], part["values"], part["n"]) == ("", "", "0.05", "1")
    assert by_place["Yelp", "Llama", "CE", "ndcg@10"]["n"] == "0"


def test_equal_input_gives_equal_bytes_in_any_order_of_records():
    records = runs(CE, [0.0290, 0.0292]) + runs(POINT, [0.05, 0.06]) + runs(MSL, [0.01, 0.02], **QUICK)
    one, other = ({number: (table.markdown, table.csv) for number, table in tables(some).items()}
                  for some in (records, records[::-1]))
    assert one == other


def test_grades_are_counted_by_table():
    table = tables(runs(CE, [0.0292, 0.0292]))
    assert table["1"].grades == {"exact": 1, "not reproduced": 3, "not run": 204}
    assert list(table) == list("12345")


def test_how_our_rows_count_and_search_is_said():
    notes = tables(runs(CE, [0.03, 0.03]) + runs(MSL, [0.03, 0.03]))["1"].notes
    assert any(f'TIGER CE is "{LABELS[CE]}" (ID-level); TIGER MSL is "{LABELS[MSL]}" (ID-level, decoded by the softmax '
               'over valid tokens).' in note for note in notes)


def test_best_settings_and_the_online_test_are_for_reference():
    assert shown(EMPTY["apao"][4], "Office", POINT, "eta") == "0.0001"
    assert shown(EMPTY["rankgr"][4], "", "RankGR", "Page views, change") == "+1.08%"
    assert EMPTY["rankgr"][4].markdown.count("%") == 4
