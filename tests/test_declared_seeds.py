"""A row for which the queue declares fewer seeds than others have: it stands with these, beside the seeds of others
that it has in common with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_bench.experiments import queue
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.experiments.identity import method
from genrec_bench.metrics.base import averaged, row_values
from genrec_bench.reporting import claims, markdown, tables
from genrec_bench.reporting.figures.runs import incomplete
from genrec_bench.reporting.leaderboard import board
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results.records import RecordStore, RunRecord
from tests.small_records import SEEDS, record_of, suite_record, table_rows
from tests.test_groups import USERS, kept

CE, POINT = "TIGER + cross-entropy", "TIGER + APAO-Pointwise"


def made() -> list[RunRecord]:
    return [record_of("ml-100k", "item_knn", 0), *(suite_record(CE, s, 0.03) for s in SEEDS),
            *(suite_record(POINT, s, 0.03) for s in SEEDS[:2])]


@pytest.fixture()
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordStore:
    monkeypatch.setattr(queue, "declared_seeds",
                        lambda: {("quick", "ml-100k", made()[-1].method): frozenset(SEEDS[:2])})
    return kept(tmp_path, made())


def mean(store: RecordStore, label: str, seeds: tuple[int, ...]) -> float:
    """NDCG@10 over users and seeds, from the ranks."""
    ranks = [store.read_ranks(r) for r in store.read_all() if r.label == label and r.seed in seeds]
    return float(np.mean([averaged(row_values("ndcg", one, 10)[None], USERS) for one in ranks]))


def files_of(store: RecordStore) -> Mapping[str, Any]:
    return markdown.build("apao", markdown.Source(store.read_all(), store.root, drawn=False))[0].files


@pytest.mark.parametrize(("declared", "stands"),
                         [(SEEDS[:2], True), (SEEDS[1:2], False), (SEEDS, False), (None, False)])
def test_who_stands(declared: tuple[int, ...] | None, stands: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {} if declared is None else {("quick", "ml-100k", made()[-1].method): frozenset(declared)}
    monkeypatch.setattr(queue, "declared_seeds", lambda: known)
    block, = arrange(load_suite("apao"), made())
    group = next(g for g in block.groups if g.label == POINT)
    assert block.missing(group) == (2,) and block.stands(group) == stands
    assert all(block.stands(g) for g in block.groups if g is not group)
    assert block.uneven == (((POINT, 2),) if stands else ()) and incomplete(block) == ([] if stands else [POINT])


def test_its_mean_and_its_difference_are_those_of_its_seeds(store: RecordStore) -> None:
    ours, theirs = (mean(store, label, SEEDS[:2]) for label in (POINT, CE))
    files = files_of(store)
    page = files["apao/report.md"].decode()
    rows = table_rows(page, "### ml-100k, profile quick")
    assert rows[POINT][0] == "2" and "Incomplete" not in page and rows[CE][3] == "reference"
    assert rows[POINT][3].startswith(f"{100 * (ours / theirs - 1):+.1f} [")
    tested = table_rows(page, "## Declared comparisons")[f"{POINT} over cross-entropy"]
    assert tested[1] == "2" and tested[2] == rows[POINT][3]
    assert "**" not in rows[POINT][1] + rows[POINT][2], "the best of those with equal seeds alone is marked"
    block = arrange(load_suite("apao"), [r for r in made() if r.label in (CE, POINT)])[0]
    assert "**" not in "".join(tables.means(block, block.groups, "ndcg@10")), "one row alone is not the best"
    lines = list(csv.DictReader(io.StringIO(files["apao/tables/groups.csv"].decode())))
    own, plain = (next(line for line in lines if line["method"] == label and line["group"] == "day not known")
                  for label in (POINT, CE))  # a group that holds all rows
    assert float(own["ndcg@10"]) == pytest.approx(ours) and own["reference"] == CE
    assert float(own["difference"]) == pytest.approx(ours - theirs)
    assert float(plain["ndcg@10"]) == pytest.approx(mean(store, CE, SEEDS))


def test_it_answers_claims_and_stands_on_the_leaderboard(store: RecordStore) -> None:
    ours, theirs = (mean(store, label, SEEDS[:2]) for label in (POINT, CE))
    materials = markdown.Source(store.read_all(), store.root).materials("all")
    material = next(m for m in materials if m.suite.name == "apao")
    found = next(e.found for e in claims.evidence(material.paper, material)
                 if e.found and e.claim.quantity == "ndcg@10" and e.rows[0].label == POINT)
    assert found.seeds == 2 and found.value == pytest.approx(ours / theirs - 1)
    line = next(line for line in board(materials)["blocks"][0]["lines"] if line["label"] == POINT)
    assert line["missing"] == () and line["scores"]["item"]["ndcg@10"][0] == round(ours, 4)
    assert line["scores"]["item"]["difference"][0] == round(ours - theirs, 4)


def test_without_a_common_seed_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ce, point = ([r for r in made() if r.label == label] for label in (CE, POINT))
    known = {("quick", "ml-100k", of[0].method): frozenset(r.seed for r in of) for of in (ce[2:], point)}
    monkeypatch.setattr(queue, "declared_seeds", lambda: known)
    kept(tmp_path, [made()[0], *ce[2:], *point])
    rows = table_rows(files_of(RecordStore(tmp_path))["apao/report.md"].decode(), "### ml-100k, profile quick")
    assert (rows[CE][0], rows[POINT][0], rows[CE][3], rows[POINT][3]) == ("1", "2", "reference", "–")
    material, *_ = (m for m in markdown.Source(RecordStore(tmp_path).read_all(), tmp_path).materials("all")
                    if m.suite.name == "apao")
    assert "no common seed" in {e.why for e in claims.evidence(material.paper, material)}
    assert not any("difference" in line["scores"]["item"] for line in board([material])["blocks"][0]["lines"]
                   if line["label"] == POINT)


def test_our_queue_declares_what_it_runs() -> None:
    known = queue.declared_seeds()
    for row, seeds in (("TIGER + APAO-Pairwise", {0, 1, 2}), ("TIGER + MSL", {0, 1, 2, 3, 4})):
        config, *_ = expand(Selection("apao", "standard", ("apao_office",), baselines=(), rows=(row,)))
        assert known["standard", "apao_office", method(config)] == seeds
