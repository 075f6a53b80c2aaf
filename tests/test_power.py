"""Noise and power in reports: which runs are taken, what is printed beside the paper's gain, and what is drawn."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.analysis.claims import answer
from genrec_bench.analysis.noise import pooled, self_comparison
from genrec_bench.contracts import Rankings
from genrec_bench.reporting import power, verdicts
from genrec_bench.reporting.figures import tested as drawn
from genrec_bench.reporting.pages import Pages
from genrec_bench.reporting.papers import load_paper
from genrec_bench.reporting.printed import printed_gain
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.results.records import RecordStore
from tests.small_records import apao, record_of, table_rows

USERS = 300
CE, POINTWISE, PAIRWISE = "TIGER + cross-entropy", "TIGER + APAO-Pointwise", "TIGER + APAO-Pairwise"
BLOCK = "apao_office, profile standard"
HEADING = f"### {BLOCK}: noise floor\n"


def material(folder: Path, seeds: Sequence[int], more: Sequence[int] = (), *, profile: str = "standard",
             rows: Sequence[str] = (CE, POINTWISE)) -> ReportData:
    """Rows with ranks of their own at some seeds, cross-entropy at `more` seeds too."""
    records = []
    for place, label in enumerate(rows):
        source = next(row for row in apao().rows if row.label == label).source
        for seed in (*seeds, *(more if label == CE else ())):
            record = record_of("apao_office", "tiger", seed, row=source, profile=profile)
            hit = np.random.default_rng([seed, place]).random(USERS) < 0.3
            ranks = Rankings(hit.astype(int), np.ones(USERS, dtype=int), hit.astype(int))
            RecordStore(folder).write(record, ranks, ranks)
            records.append(record)
    return ReportData.of(apao(), records, folder)


def section(made: ReportData) -> tuple[str, Pages]:
    pages = Pages()
    return power.section(made, pages, "apao"), pages


def rows_of(pages: Pages, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(pages.files[f"apao/tables/{name}.csv"].decode().splitlines()))


def test_a_comparison_stands_beside_the_gain_that_the_paper_prints(tmp_path):
    """APAO, Table 1, Office, NDCG@10: .0337 against .0292."""
    made = material(tmp_path, range(5))
    text, pages = section(made)
    test, = (t for one in made.families for t in one.tests)
    gain, c = 0.0337 / 0.0292 - 1, test.comparison
    wanted = answer(c.interval[0] / c.mean_b, c.interval[1] / c.mean_b, gain)
    cells = table_rows(text, "### What the declared comparisons could show\n")[BLOCK]
    assert cells[:3] == [f"{POINTWISE} over cross-entropy", "5", "300"]
    beside = table_rows("\n" + verdicts.facts(made.families, load_paper("apao"))["table"], "")
    assert beside[f"{POINTWISE} over cross-entropy"][-2:] == ["+15.4", wanted]
    assert cells[3:5] == [f"{100 * size / c.mean_b:.1f}" for size in (c.minimum_detectable, test.detectable)]
    line, = rows_of(pages, "power")
    assert line["answer"] == wanted and float(line["paper_gain"]) == pytest.approx(gain)
    assert float(line["variance_noise"]) == test.parts.noise


def test_rows_that_lack_seeds_answer_no_claim(tmp_path):
    """Three seeds beside five: tested on three, and no answer before the other two are there."""
    made = material(tmp_path, range(3), (3, 4))
    test, = (t for one in made.families for t in one.tests)
    line, = rows_of(section(made)[1], "power")
    assert test.seeds == (0, 1, 2) and line["answer"] == "cannot tell: seeds missing"


def test_printed_gains_are_of_one_table_and_of_the_papers_data():
    paper, rows = load_paper("apao"), {row.label: row for row in apao().rows}
    plain, in_two_stages = rows[CE], rows["TIGER + CE + S-DPO, one stage"]  # which Table 3 alone has
    assert printed_gain("apao_beauty", rows[POINTWISE], plain, "ndcg@10", paper) == pytest.approx(0.0332 / 0.0318 - 1)
    assert printed_gain("apao_beauty", in_two_stages, rows[POINTWISE], "ndcg@10", paper) == pytest.approx(167 / 332 - 1)
    for dataset, row in (("ml-100k", rows[POINTWISE]), ("apao_beauty", in_two_stages)):
        assert printed_gain(dataset, row, plain, "ndcg@10", paper) is None
    sasrec = next(row for row in apao().rows if row.baseline == "sasrec")
    assert printed_gain("apao_beauty", plain, sasrec, "ndcg@10", paper) is None


def test_the_floor_is_for_the_seeds_of_the_profile_and_from_all_there_are(tmp_path):
    """Seeds 5 to 7 are cross-entropy's alone: in no table, but against itself they count. n stays 5."""
    made = material(tmp_path, range(5), range(5, 8), rows=(CE, POINTWISE, PAIRWISE))
    text, pages = section(made)
    block, = made.blocks
    group = block.with_extra(block.groups[0])
    assert block.groups[0].seeds == tuple(range(5)) and group.seeds == tuple(range(8)) and len(block.extra) == 3
    assert block.with_extra(block.groups[1]).records == block.groups[1].records
    found = self_comparison(made.values(group))
    cells = table_rows(text, HEADING)
    assert cells["Seeds"] == ["8"] and cells["A/A: splits, seeds a half"] == ["35, 4"]
    floor = f"{found.floor(5):.4f} ({100 * found.floor(5) / found.mean:.1f} %)"
    assert cells["**Noise floor**: SD of a difference with n = 5 seeds each"] == [floor]
    line, = rows_of(pages, "noise")
    assert float(line["floor_half_width_95"]) == found.half_width(5) and line["seeds"] == "0 1 2 3 4 5 6 7"


def test_the_table_by_seeds_and_users_and_its_figure(tmp_path):
    made = material(tmp_path, range(5), rows=(CE, POINTWISE, PAIRWISE))
    tests = [t for one in made.families for t in one.tests]
    parts, mean = pooled([t.parts for t in tests]), tests[0].comparison.mean_b
    text, _ = section(made)
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| TIGER  ")]
    for cells, users in zip(lines, (300, 600, 1350), strict=True):
        assert [float(cell) for cell in cells[2:]] == pytest.approx(
            [100 * parts.detectable(n, users) / mean for n in (1, 2, 3, 5, 10, 20, math.inf)], abs=0.0501)
    floor = 100 * parts.detectable(math.inf, 300) / mean
    assert f"With any number of seeds these 300 users cannot show less than {floor:.1f} % (TIGER)." in text
    chart = drawn.power_figure(made, made.blocks[0])
    shown = [p["value"] for p in chart.points if p["method"] == "300 users" and p["mark"] == "mean"]
    assert shown == pytest.approx([parts.detectable(n, 300) / mean for n in (1, 2, 3, 5, 10, 20)])
    assert "grey: the gains that the paper prints" in chart.caption and not chart.lacks()


def test_too_few_seeds_are_said_in_a_line(tmp_path):
    made = material(tmp_path, range(3))
    text, pages = section(made)
    assert text.endswith(f"Too few seeds for a noise floor, which needs 4: {BLOCK}, {CE}: 3.")
    assert "noise floor\n" not in text and "apao/tables/noise.csv" not in pages.files
    assert drawn.power_figure(made, made.blocks[0]) is None


def test_nothing_is_said_without_ranks_or_of_smoke(tmp_path):
    made = material(tmp_path, range(4))
    records = [r for g in made.blocks[0].groups for r in g.records]
    for other in (ReportData.of(apao(), records), material(tmp_path / "smoke", range(4), profile="smoke")):
        assert section(other)[0] == ""


def test_cross_entropy_alone_has_a_floor_and_no_curve(tmp_path):
    text, pages = section(material(tmp_path, range(4), rows=(CE,)))
    assert HEADING in text and "cannot show less" not in text and "apao/tables/power.csv" not in pages.files
