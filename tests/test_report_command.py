"""The report verb: golden text, single tables and figures, the check, the page, and what a user gets wrong."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from genrec_bench.cli import main
from genrec_bench.reporting import markdown, pages
from genrec_bench.reporting.figures import base
from genrec_bench.reporting.figures.base import plates
from genrec_bench.results.records import RecordStore
from tests import golden_report

ENDS = ("-column.pdf", "-column.svg", ".csv", ".pdf", ".sha256", ".svg")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return golden_report.stored_in(tmp_path_factory.mktemp("results"))


@pytest.fixture
def undrawn(monkeypatch) -> None:
    monkeypatch.setattr(markdown, "plates", lambda suite=None, paper=None: [])


@pytest.mark.parametrize("name", golden_report.KEPT)
def test_the_text_of_a_tiny_report(results, name):
    """A change here is a change of what readers see: look at it, then `python -m tests.golden_report`."""
    assert golden_report.rendered(results)[name] == (golden_report.FOLDER / name).read_text(encoding="utf-8")


def test_the_report_begins_with_the_claims_then_results_then_comparisons(results):
    files = golden_report.rendered(results)
    heads = [line for line in files["apao/report.md"].splitlines() if line.startswith("## ")]
    assert heads == ["## What APAO claims", "## Results", "## Declared comparisons"]
    assert [line for line in files["index.md"].splitlines() if line.startswith("## ")][:3] == [
        f"## What is known of {name}'s claims" for name in ("APAO", "BEAR", "RankGR")]


@pytest.mark.usefixtures("undrawn")
def test_check_finds_what_is_different(results, tmp_path, capsys):
    words = ["report", "--suite", "apao", "--results", str(results), "--reports", str(tmp_path)]
    assert main([*words, "--check"]) == 1
    assert not list(tmp_path.iterdir()) and "report.md is missing" in capsys.readouterr().err
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--check"]) == 0 and "are what the records give" in capsys.readouterr().out
    report, old = tmp_path / "apao" / "report.md", tmp_path / "apao" / "tables" / "old.csv"
    report.write_text(report.read_text().replace("0.0", "0.1", 1))
    old.touch()
    (tmp_path / "index.md").unlink()
    assert main([*words, "--check"]) == 1
    said = capsys.readouterr()
    assert [line.partition(": ")[2].partition(" from line")[0] for line in said.err.splitlines()] == [
        "apao/report.md is different", "apao/tables/old.csv is of no record", "index.md is missing"]
    assert "3 files are not what the records give" in said.out and old.exists()
    assert main(words) == 0 and not old.exists()


@pytest.mark.usefixtures("undrawn")
def test_no_report_that_is_there_falls_behind(results, tmp_path):
    """`network` is in no suite that includes others but the queue, and the index links it once it is there."""
    words = ["report", "--results", str(results), "--reports", str(tmp_path)]
    page = tmp_path / "network" / "report.md"
    assert main(words) == 0 and not page.exists()
    assert main([*words, "--suite", "network"]) == 0
    page.write_text("old\n")
    assert main([*words, "--check"]) == 1 and main(words) == 0 and page.read_text() != "old\n"


def test_only_some_tables_and_figures(results, tmp_path, capsys):
    words = ["report", "--suite", "apao", "--results", str(results), "--reports", str(tmp_path), "--only"]
    assert main([*words, "table:1,figure:ranking"]) == 0
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert written == [*(f"apao/figures/apao-ranking-ml-100k{end}" for end in ENDS), "papers/apao/table-1.csv",
                       "papers/apao/table-1.md", "papers/apao/table-1.tex"]
    assert sorted(capsys.readouterr().out.split()) == sorted(str(tmp_path / name) for name in written)
    assert main([*words, "figure:forst"]) == 2 and "Did you mean 'figure:forest'?" in capsys.readouterr().err
    assert main([*words, "table:9"]) == 2 and "table:5" in capsys.readouterr().err
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == written


def test_a_figure_that_cannot_be_drawn_says_why(results, tmp_path, capsys):
    words = ["report", "--suite", "apao", "--results", str(results), "--reports", str(tmp_path), "--only"]
    assert main([*words, "figure:apao-2a"]) == 0
    assert not list(tmp_path.rglob("*.svg")) and "not drawn; it needs complete runs of" in capsys.readouterr().err
    assert main([*words, "figure:apao2a"]) == 2 and "Did you mean 'figure:apao-2a'?" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_one_page_of_all_reports(results, tmp_path, capsys):
    assert main(["report", "--results", str(results), "--reports", str(tmp_path), "--html"]) == 0
    assert str(tmp_path / "index.html") in capsys.readouterr().out
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "TIGER + APAO-Pointwise" in text and "RankGR" in text and "http-equiv" in text


def test_figures_drawn_by_two_processes_are_the_same(results, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # as in the command, which does not load it
    material = markdown.Source(RecordStore(results).read_all(), results).material(markdown.load_suite("apao"))
    some = [p for p in plates(material.suite) if p.number in ("results", "curves", "forest")]
    drawn = []
    for jobs in (1, 2):
        with pages.drawing([(material, some)], jobs) as of:
            drawn.append(of(material))
    assert len(drawn[0]) >= pages.FEW and drawn[0] == drawn[1]


def test_a_figure_of_ones_own_is_one_function(monkeypatch):
    """Registered under a new word it is found, after all others; one word twice is refused."""
    before = [p.key for p in plates()]
    monkeypatch.setattr(base, "_PLATES", dict(base._PLATES))
    base.plate("mine", title="Mine")(lambda material, block: None)
    assert [p.key for p in plates()] == [*before, "figure:mine"]
    with pytest.raises(ValueError, match="registered twice"):
        base.plate("mine", title="Other")(lambda material, block: None)


@pytest.mark.usefixtures("undrawn")
def test_every_link_of_the_index_leads_to_a_page(results, tmp_path):
    """After one suite alone its pages are linked and no others; after all of them, all; then one alone keeps them."""
    words = ["report", "--results", str(results), "--reports", str(tmp_path)]
    counts = []
    for suite in ("apao", "all", "apao"):
        assert main([*words, "--suite", suite]) == 0
        links = set(re.findall(r"\]\(([^)]+)\)", (tmp_path / "index.md").read_text(encoding="utf-8")))
        assert links and all((tmp_path / link).is_file() for link in links)
        counts.append(len(links))
    assert counts[0] == 2 and counts[1] == counts[2] > 2


@pytest.mark.usefixtures("undrawn")
def test_a_page_of_before_goes_with_the_next_report(results, tmp_path):
    words = ["report", "--suite", "apao", "--results", str(results), "--reports", str(tmp_path)]
    assert main([*words, "--html"]) == 0 and (tmp_path / "index.html").is_file()
    assert main(words) == 0 and not (tmp_path / "index.html").exists()


def test_tables_of_all_papers(results, tmp_path):
    assert main(["report", "--results", str(results), "--reports", str(tmp_path), "--only", "table:1"]) == 0
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.md")) == [
        f"papers/{paper}/table-1.md" for paper in ("apao", "bear", "rankgr")]
