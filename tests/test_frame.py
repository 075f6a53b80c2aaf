"""The frames of runs: by hand, from records of few numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas
import pytest

from genrec_bench import api
from genrec_bench.core.errors import UserError
from genrec_bench.core.seeds import TUNING_SEED
from genrec_bench.results.frame import FACTS, KEY, METRIC, RUN, facts, frame, runs
from tests.small_records import record_of, stored, suite_record

TIGER = record_of("ml-100k", "tiger", 2)
DOCUMENT = Path(__file__).parents[1] / "docs" / "records.md"


def test_a_metric_by_hand() -> None:
    record = replace(TIGER, metrics={"valid_id_ndcg@10": 0.1 + 0.2, "mine": 2.0, "unseen_id_recall@5": 0.5})
    table = frame([record])
    assert list(table) == [*KEY, *METRIC]
    assert table[list(METRIC)].astype(object).where(table[list(METRIC)].notna(), None).values.tolist() == [
        ["test", "kept", "item", "mine", None, 2.0], ["test", "unseen", "id", "recall", 5, 0.5],
        ["valid", "kept", "id", "ndcg", 10, 0.30000000000000004]]
    row = table.iloc[0]
    assert {name: row[name] for name in KEY if name != "baseline"} == {
        "run_id": record.run_id, "dataset": "ml-100k", "profile": "quick", "method": record.method,
        "label": "TIGER + cross-entropy", "backbone": "tiger", "objective": "cross_entropy", "seed": 2, "trial": False}
    assert pandas.isna(row["baseline"])


def test_a_run_by_hand() -> None:
    """Work and seconds of both stages, epochs of each by itself, and what APAO's weights were in the end."""
    first = suite_record("TIGER + cross-entropy", 0, 0.1, steps=200, positions=(100, 7))
    second = suite_record("TIGER + CE → DMPO", 0, 0.1, steps=50, positions=(30, 2), after=first)
    curve = [{"epoch": 1, "state": {"apao.weights": [0.5, 0.5]}}, {"epoch": 2, "state": {"apao.weights": [0.25, 0.75]}}]
    second = replace(second, training={**second.training, "curve": curve, "epochs": 2, "stopped": "patience"})
    one, two = (row for _, row in runs([first, second]).iterrows())
    wanted = {"objective": "cross_entropy > dmpo", "steps": 250, "first_stage_steps": 200, "epochs": 2,
              "first_stage_epochs": 12, "positions_with_gradient": 130, "positions_without_gradient": 9,
              "train_seconds": 60.0, "first_stage_seconds": 30.0, "first_stage_share": 0.5, "stopped": "patience",
              "prefix_weights": "0.25 0.75", "device": "cpu", "threads": 1, "dirty": False, "test_rows": 943,
              "peak_memory_bytes": 512 * 2**20}
    assert {name: two[name] for name in wanted} == wanted
    assert (one["steps"], one["train_seconds"], one["positions_with_gradient"]) == (200, 30.0, 100)
    assert one[["first_stage_steps", "first_stage_seconds", "first_stage_share", "prefix_weights"]].isna().all()


def test_what_a_stage_does_not_state_is_not_summed() -> None:
    first = suite_record("TIGER + cross-entropy", 0, 0.1)
    second = suite_record("TIGER + CE → DMPO", 0, 0.1, after=first)
    stage = {**second.training["first_stage"], "steps": None}
    assert facts(replace(second, training={**second.training, "first_stage": stage}))["steps"] is None
    bare = runs([replace(TIGER, training={}, timings={}, provenance={}, data={}, identity={}, config={
        "dataset": {"name": "x"}, "seed": 0})])
    assert list(bare) == list(RUN) and bare[list(FACTS)].isna().all(axis=None)


def test_kinds_of_columns_do_not_depend_on_what_is_there() -> None:
    whole, none = frame([TIGER]), frame([])
    assert (whole.dtypes == none.dtypes).all() and list(whole) == list(none) and none.empty
    assert (runs([TIGER]).dtypes == runs([]).dtypes).all()


def test_the_public_frame(tmp_path: Path) -> None:
    tiger = [record_of("ml-100k", "tiger", s) for s in (0, 1, TUNING_SEED)]
    stored(tmp_path, [*tiger, record_of("apao_office", "sasrec", 0)])
    scores = api.frame(tmp_path).query("metric == 'ndcg' and k == 10 and part == 'test' and level == 'item'")
    means = scores.groupby(["dataset", "label"])["value"].mean()
    assert means["ml-100k", "TIGER + cross-entropy"] == pytest.approx(0.0505) and len(means) == 2
    assert set(api.frame(tmp_path, per="run", datasets=["apao_office"])["baseline"]) == {"sasrec"}
    assert api.frame(tmp_path, per="run", trials=True)["trial"].sum() == 1
    assert api.frame(tmp_path, per="user").groupby("run_id")["row"].agg(list).tolist() == [[0, 1, 2]] * 3
    with pytest.raises(UserError, match="unknown kind of line 'users' in per. Did you mean 'user'"):
        api.frame(tmp_path, per="users")


def test_every_column_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [name for name in RUN | METRIC if f"`{name}`" not in text] == []
