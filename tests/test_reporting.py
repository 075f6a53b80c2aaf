"""Reports: numbers by hand, equal bytes for equal records, nothing averaged that may not be."""

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from genrec_bench.commands import report
from genrec_bench.core.errors import UserError
from genrec_bench.reporting import markdown
from genrec_bench.reporting.figures.style import looks
from genrec_bench.reporting.load import Block, Group, arrange, run_table, summarise
from genrec_bench.reporting.markdown import render_suite
from genrec_bench.reporting.papers import load_paper
from genrec_bench.reporting.printed import why_not, why_not_group
from genrec_bench.reporting.rows import Row, load_suite
from tests.small_records import all_records, record_of, stored, table_rows, unseeded_elsewhere

ROOT = Path(__file__).resolve().parents[1]
SASREC = "SASRec (RecBole, CE)"
ALL = "### ml-100k, profile quick: all metrics"


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without pictures, where only the text is looked at."""
    monkeypatch.setattr(markdown, "plates", lambda suite=None, paper=None: [])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """The folder with the report of all records."""
    folder = tmp_path_factory.mktemp("reports")
    render_suite("apao", all_records(), folder, results=folder / "no diagnoses here")
    return folder


def test_mean_and_sample_deviation():
    """0.05, 0.051, 0.052: mean 0.051, squares 1e-6 + 0 + 1e-6 over n - 1 = 2, so SD 0.001."""
    summary = summarise([0.05, 0.051, 0.052])
    assert summary.mean == pytest.approx(0.051) and summary.sd == pytest.approx(0.001) and summary.n == 3
    assert summarise([0.05]).sd is None and summarise([]).mean is None


def test_results_tables_hold_the_numbers(rendered):
    page, text = ((rendered / "apao" / name).read_text() for name in ("report.md", "appendix.md"))
    short = table_rows(page, "### ml-100k, profile quick")
    assert short["TIGER + cross-entropy"] == ["3", "0.1020", "0.0510", "reference", "12 (11)"]
    assert short[SASREC][1:] == ["0.1220", "0.0610", "+19.6", "12 (11)"] and short["Popularity"][0] == "1 (not seeded)"
    rows = table_rows(text, ALL)
    assert list(rows) == ["Popularity", "Item-kNN", SASREC, "TIGER + cross-entropy"]
    assert rows["TIGER + cross-entropy"][0] == "3"
    # columns: n, Recall@5 @10 @20, NDCG@5 @10 @20, MRR@10
    assert rows["TIGER + cross-entropy"][5] == "0.0510 ± 0.0010"
    assert rows[SASREC][5] == "**0.0610 ± 0.0010**"
    assert rows["Popularity"][0] == "1 (not seeded)" and rows["Popularity"][5] == "0.0200"
    assert rows[SASREC][2] == "**0.1220 ± 0.0020**" and rows[SASREC][7] == "**0.0488 ± 0.0008**"
    by_id = table_rows(text.split(ALL, 1)[1], "where that differs:")
    assert list(by_id) == ["TIGER + cross-entropy"] and by_id["TIGER + cross-entropy"][5] == "0.0515 ± 0.0010"
    with open(rendered / "apao" / "tables" / "results.csv", newline="") as file:
        cell = next(r for r in csv.DictReader(file) if r["dataset"] == "ml-100k" and r["metric"] == "ndcg@10"
                    and r["method"].startswith("TIGER"))
    assert [float(v) for v in cell["values"].split()] == [0.05, 0.05 + 0.001, 0.05 + 0.002]
    assert float(cell["sd"]) == pytest.approx(statistics.stdev(float(v) for v in cell["values"].split()), rel=1e-12)


@pytest.mark.usefixtures("undrawn")
def test_the_best_is_marked_where_all_rows_are_there(tmp_path, monkeypatch):
    text = render_suite("apao", all_records(), tmp_path).read_text()
    assert "**0.0610**" not in text and "No best of a column is marked: " in text
    suite = load_suite("apao")
    few = replace(suite, rows=tuple(row for row in suite.rows if row.baseline != "bert4rec" and (
        row.baseline or row.label == "TIGER + cross-entropy")))
    monkeypatch.setattr(markdown, "load_suite", lambda name, folder=None: few if name == "apao" else load_suite(name))
    rows = table_rows(render_suite("apao", all_records(), tmp_path).read_text(), "### ml-100k, profile quick")
    assert rows[SASREC][2] == "**0.0610**"


def test_only_the_papers_settings_stand_beside_the_paper(rendered):
    text = (rendered / "apao" / "appendix.md").read_text()
    assert "- Not comparable (it is not among the paper's datasets): ml-100k, profile quick." in text
    # seeds 0.029, 0.030, 0.031 at item level, 0.0005 more at ID level, printed 0.0292; the SE is 0.0006
    cells = table_rows((rendered / "papers" / "apao.md").read_text(), "**TIGER, Office**")["CE"]
    assert cells[2].startswith("0.0305 ± 0.0010 (0.0292, +0.0013, ")
    assert "1 of the 64 results of Tables 1 and 3" in text


def test_why_not_beside_the_paper():
    suite, paper = load_suite("apao"), load_paper("apao")

    def reason(overrides=None, label="TIGER + cross-entropy", **changes):
        row = next(row for row in suite.rows if row.label == label).source
        record = record_of("apao_office", "tiger", 0, row=row, overrides=overrides, **changes)
        block, = arrange(suite, [record], overrides)
        return why_not(block, paper)

    assert reason() == ""
    assert "profile quick" in reason(profile="quick")
    assert "split.train_targets_per_user is 5, 0 under" in reason({"split": {"train_targets_per_user": 5}})
    ids = record_of("apao_office", "tiger", 0, tokenizer={"name": "rq_kmeans"})
    assert arrange(suite, [ids]) == []
    group = arrange(suite, [record_of("apao_office", "tiger", 0)])[0].groups[0]
    assert "tokenizer.name is rq_kmeans, given under" in why_not_group(replace(group, runs=run_table([ids])), paper)
    assert "training.epochs is 5, 200 under profile paper" in reason({"training": {"epochs": 5}})
    assert "training.weight_decay is 0.1, 0.01 under" in reason({"training": {"weight_decay": 0.1}})
    assert "decoding.temperature is 2.0, 1.0 under" in reason({"decoding": {"temperature": 2.0}})
    assert reason({"decoding": {"batch_size": 7}}) == ""
    pointwise = "TIGER + APAO-Pointwise"  # its weight and eta on Office are those of Table 5
    assert reason(label=pointwise) == "" and reason({"apao": {"weight": 0.3, "eta": 1e-4}}, pointwise) == ""
    assert "objectives.1.weight is 0.4, 0.3 under" in reason({"apao": {"weight": 0.4}}, pointwise)
    assert "objectives.eos is True, False under" in reason({"cross_entropy": {"eos": True}})
    block, = arrange(suite, [record_of("apao_office", "sasrec", 0)])
    assert why_not(block, paper) == "no row of the paper has been run"
    assert f"prints no row for {SASREC}" in why_not_group(block.groups[0], paper)


@pytest.mark.usefixtures("undrawn")
def test_missing_seeds_are_marked(tmp_path):
    records = [r for r in all_records() if not (r.dataset == "ml-100k" and r.label == SASREC and r.seed == 1)]
    text = render_suite("apao", records, tmp_path).read_text()
    rows = table_rows(text, "### ml-100k, profile quick")
    assert rows[SASREC][:3] == ["2 of 3 †", "0.1200 / 0.1240", "0.0600 / 0.0620"] and rows[SASREC][3] == "–"
    assert rows["TIGER + cross-entropy"][0] == "3" and f"† Incomplete: {SASREC} lacks seed 1." in text


@pytest.mark.usefixtures("undrawn")
def test_one_seed_has_no_deviation(tmp_path):
    page = render_suite("apao", [r for r in all_records() if r.seed == 0], tmp_path)
    cells = table_rows((page.parent / "appendix.md").read_text(), ALL)["TIGER + cross-entropy"]
    assert cells[0] == "1" and cells[5] == "0.0500" and "±" not in cells[5]


@pytest.mark.usefixtures("undrawn")
def test_two_profiles_of_one_dataset(tmp_path):
    path = render_suite("apao", unseeded_elsewhere(), tmp_path)
    assert "From 14 runs. Profiles: paper: " in path.read_text()
    text = (path.parent / "appendix.md").read_text()
    assert "Not seeded: Popularity, Item-kNN. One run of these is in the tables of all profiles" in text
    for profile in ("paper", "quick"):
        assert table_rows(text, f"### apao_office, profile {profile}: all metrics")["Item-kNN"][5] == "0.0370"
    leaders = table_rows((tmp_path / "index.md").read_text(), "## Who leads by NDCG@10")
    for p in ("paper", "quick"):
        assert leaders[f"apao_office, {p}"][:2] == [SASREC, "0.0470 ± 0.0010 / –"]
    with open(path.parent / "tables" / "runs.csv", newline="") as file:
        assert [(r["block"], r["profile"]) for r in csv.DictReader(file) if r["method"] == "Item-kNN"] == [
            ("apao_office, profile paper", "quick"), ("apao_office, profile quick", "quick")]


@pytest.mark.usefixtures("undrawn")
def test_the_rule_about_the_users_history(tmp_path):
    page = render_suite("apao", [record_of("ml-100k", m, 0) for m in ("item_knn", "tiger")], tmp_path)
    text = (page.parent / "appendix.md").read_text()
    assert "the user's own history included; \"history out\" is without it, for every method alike" in text


def test_no_two_methods_look_alike():
    rows = [Row({"baseline": {"name": name}}) for name in ("sasrec", "item_knn", *(f"m{i}" for i in range(16)))]
    record = record_of("ml-100k", "sasrec", 0)
    block = Block("b", "ml-100k", "quick", tuple(Group(row, row.key, run_table([record])) for row in rows))
    assert len(set(looks([block]).values())) == len(rows)


def test_same_records_same_bytes(tmp_path, rendered):
    render_suite("apao", all_records()[::-1], tmp_path, results=tmp_path)
    files = sorted(p.relative_to(rendered) for p in rendered.rglob("*") if p.is_file())
    assert Path("index.md") in files and Path("apao/report.md") in files and len(files) > 14
    for name in files:
        assert (rendered / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_figures_show_something(rendered):
    path = rendered / "apao" / "appendix.md"
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", path.read_text())
    assert len(pictures) == 6  # results, curves and costs of both data sets; without ranks no tests
    for picture in pictures:
        assert len(list(ElementTree.parse(path.parent / picture).iter())) > 100
        assert (path.parent / picture).with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert (path.parent / picture).with_suffix(".csv").read_text().startswith("panel,quantity,method,mark,at,")


def test_an_empty_field_is_a_dash(tmp_path):
    bare = [replace(r, training={}, timings={}, provenance={}, tokenizer={}, data={"name": r.dataset},
                    metrics={"ndcg@10": r.metrics["ndcg@10"]}) for r in all_records()]
    page = render_suite("apao", bare, tmp_path)
    text = page.read_text() + (page.parent / "appendix.md").read_text()
    assert table_rows(text, ALL)[SASREC][1] == "–"
    assert "nan" not in text and "None" not in text


def test_pictures_of_an_earlier_report_go(tmp_path):
    old = tmp_path / "apao" / "figures" / "results-apao-office-profile-paper.png"
    old.parent.mkdir(parents=True)
    old.touch()
    render_suite("apao", [r for r in all_records() if r.dataset == "ml-100k"], tmp_path)
    assert not old.exists() and list(old.parent.glob("*.svg"))


@pytest.mark.usefixtures("undrawn")
def test_report_verb(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    results = tmp_path / "results"
    args = parser.parse_args(["--suite", "apao", "--results", str(results)])
    with pytest.raises(UserError, match="no records below .* for suite 'apao'"):
        report.run(args)
    assert not results.exists()
    stored(results, all_records())
    assert report.run(args) == 0
    assert capsys.readouterr().out.strip() == str(results / "reports" / "apao" / "report.md")
    assert report.run(parser.parse_args(["--results", str(results)])) == 0
    assert capsys.readouterr().out.strip() == str(results / "reports" / "index.md")
    with pytest.raises(UserError, match="Did you mean 'apao'"):
        report.run(parser.parse_args(["--suite", "apoa", "--results", str(results)]))


BLOCKER = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "recbole", "transformers", "tensorboard"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
import argparse
from genrec_bench.commands import report
parser = argparse.ArgumentParser()
report.add_arguments(parser)
sys.exit(report.run(parser.parse_args(sys.argv[1:])))
"""


def test_works_without_torch_and_recbole(tmp_path):
    store = stored(tmp_path / "results", all_records())
    render_suite("apao", all_records(), tmp_path / "here", results=store.root)
    done = subprocess.run([sys.executable, "-c", BLOCKER, "--suite", "apao", "--results", str(tmp_path / "results"),
                           "--reports", str(tmp_path / "there")], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    for name in ("apao/report.md", "apao/appendix.md", "index.md"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
