"""Results by group of test rows: means by a loop, differences from the reference, and what is left out."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from math import log2
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.analysis.ranking import against, mean_interval
from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.reporting import markdown
from genrec_bench.reporting.groups import HEADER, parts, reference
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results import test_users
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.results.test_users import REACHES, UserFacts
from tests.small_records import SEEDS, all_records, record_of, suite_record, table_rows

USERS = np.repeat(np.arange(45), 2)
CE, MSL, SASREC = "TIGER + cross-entropy", "TIGER + MSL", "SASRec (RecBole, CE)"
FACTS = UserFacts("", USERS, np.ones(90, int), np.arange(90) % 3, np.ones(90, int),
                  np.where(np.arange(90) < 80, 0, 5), np.full(90, -1))


def kept(folder: Path, records: list[RunRecord], facts: UserFacts = FACTS) -> RecordStore:
    store = RecordStore(folder)
    for number, record in enumerate(records):
        random = np.random.default_rng(number)
        ranks = np.where(random.random(90) < 0.3, random.integers(1, 15, size=90), 0)
        made = Rankings(ranks, np.ones(90, dtype=int), ranks, USERS)
        store.write(record, made, made)
        test_users.write_users(test_users.path_of(store, record.dataset, record.split_fingerprint),
                               replace(facts, fingerprint=record.split_fingerprint))
    return store


def report(store: RecordStore) -> tuple[str, list[dict[str, str]]]:
    files = markdown.build("apao", markdown.Source(store.read_all(), store.root, drawn=False))[0].files
    lines = files.get("apao/tables/groups.csv", b"").decode()
    return files["apao/report.md"].decode(), list(csv.DictReader(io.StringIO(lines)))


def movies() -> list[RunRecord]:
    return [*(suite_record(label, s, 0.03) for label in (CE, MSL) for s in SEEDS),
            *(record_of("ml-100k", m, 0) for m in ("popularity", "item_knn"))]


def test_means_and_differences_by_a_loop(tmp_path: Path) -> None:
    store = kept(tmp_path, movies())
    text, lines = report(store)
    masks = {REACHES[0]: FACTS.reach == 0, REACHES[5]: FACTS.reach == 5, "target in training": FACTS.target_count > 0,
             "target not in training": FACTS.target_count == 0, "day not known": FACTS.same_day == -1}
    assert {(line["kind"], line["group"]) for line in lines} == {
        (kind, name) for kind, name in zip(("reach", "reach", "target", "target", "day"), masks, strict=True)}
    assert len(lines) == 4 * 5 and list(lines[0]) == list(HEADER)
    for line in lines:
        def mean(label: str, inside: np.ndarray = masks[line["group"]]) -> float:
            of = [store.read_ranks(r).ranks for r in store.read_all() if r.label == label]
            values = [np.mean([[1 / log2(rank + 1) if 0 < rank <= 10 else 0.0 for rank in
                                ranks[inside & (USERS == user)]] for user in np.unique(USERS[inside])
                               if (inside & (USERS == user)).sum() == size], axis=1).tolist()
                      for ranks in of for size in (1, 2) if any((inside & (USERS == u)).sum() == size for u in USERS)]
            return float(np.mean([v for part in values for v in part]))

        assert line["reference"] == CE
        assert float(line["ndcg@10"]) == pytest.approx(mean(line["method"]), abs=1e-9)
        assert float(line["low"]) <= float(line["ndcg@10"]) <= float(line["high"])
        if line["method"] == CE:
            assert line["difference"] == line["difference_low"] == ""
        else:
            assert float(line["difference"]) == pytest.approx(mean(line["method"]) - mean(CE), abs=1e-9)
            assert float(line["difference_low"]) <= float(line["difference"]) <= float(line["difference_high"])
    rows = table_rows(text, "### ml-100k, profile quick: by group")
    assert list(rows) == ["Popularity", "Item-kNN", CE, MSL]
    assert rows[CE][0] == "3" and rows[CE][1] == f"{float(next(r for r in lines if r['method'] == CE)['ndcg@10']):.4f}"
    assert f"| {'Method':<21} |" in text and f"{REACHES[0]} (80)" in text
    assert REACHES[5] not in text.split("by group")[1]  # too few
    assert "day not known (90)" not in text  # all rows


def test_what_a_row_is_measured_by() -> None:
    """Cross-entropy on its backbone, the first backbone's for baselines, and the best baseline in validation."""
    records = [*movies(), *(suite_record(f"Llama + {name}", s, 0.04) for name in ("cross-entropy", "MSL")
                            for s in SEEDS)]
    block, = arrange(load_suite("apao"), records)
    groups = {g.label: g for g in block.groups}
    wanted = {"Popularity": CE, MSL: CE, CE: CE, "Llama + MSL": "Llama + cross-entropy"}
    assert {name: reference(block, groups[name], block.groups).label for name in wanted} == wanted
    alone, = arrange(load_suite("apao"), [record_of("ml-100k", m, 0) for m in ("popularity", "item_knn")])
    assert [reference(alone, g, alone.groups).label for g in alone.groups] == ["Item-kNN", "Item-kNN"]
    msl, = arrange(load_suite("apao"), [suite_record(MSL, 0, 0.03)])
    assert reference(msl, msl.groups[0], msl.groups).label == MSL


def test_shared_draws_give_the_usual_means() -> None:
    """A mean's interval is `mean_interval`'s of the same users; a method is not measured by itself; zeros are not."""
    random = np.random.default_rng(0)
    one, other, nothing = random.random((2, 50)), random.random((1, 50)), np.zeros((1, 50))
    (first, none), (second, difference), (third, from_one) = against([one, other, nothing], [0, 0, 0])
    assert none is None and first.value == mean_interval(one).value and third.value == 0.0 and from_one is not None
    assert difference.value == second.value - first.value and difference.low < difference.value < difference.high
    assert against([nothing, nothing], [0, 0])[1][1] is None
    assert against([one], [0])[0][0] == mean_interval(one)


def test_rows_with_missing_seeds_and_splits_without_facts_are_left_out(tmp_path: Path) -> None:
    records = [r for r in movies() if (r.label, r.seed) != (MSL, 1)]
    text, lines = report(kept(tmp_path / "a", records))
    assert {line["method"] for line in lines} == {"Popularity", "Item-kNN", CE}
    store = kept(tmp_path / "b", records)
    next(store.root.rglob("*.users.npz")).unlink()
    text, lines = report(store)
    assert not lines and "## Results by group" not in text


def test_facts_of_another_number_of_rows_are_named(tmp_path: Path) -> None:
    short = UserFacts(*([FACTS.fingerprint] + [getattr(FACTS, name)[:7] for name in test_users.ARRAYS]))
    with pytest.raises(UserError, match="90 test rows, and the facts about them of 7"):
        report(kept(tmp_path, movies(), short))


def test_groups_share_all_rows_out() -> None:
    found = parts(FACTS)
    for kind in ("reach", "target", "day"):
        assert np.array_equal(sum(p.rows.astype(int) for p in found if p.kind == kind), np.ones(90))
    assert [(p.name, p.count, p.users, p.few) for p in found if p.kind == "reach"] == [
        (REACHES[0], 80, 40, False), (REACHES[5], 10, 5, True)]


def test_unseen_stands_beside_ndcg(tmp_path: Path) -> None:
    made = [replace(r, metrics={**r.metrics, "unseen_ndcg@10": 0.07}) for r in all_records() if r.dataset == "ml-100k"]
    files = markdown.build("apao", markdown.Source(made, tmp_path, drawn=False))[0].files
    text = files["apao/appendix.md"].decode()
    header = next(line for line in text.splitlines() if line.startswith("| Method"))
    assert [c.strip() for c in header.strip("|").split("|")][6:9] == ["NDCG@10", "NDCG@10, history out", "NDCG@20"]
    assert table_rows(text, "### ml-100k, profile quick: all metrics")[SASREC][6] == "**0.0700 ± 0.0000**"
