"""What `tune` prints to be pasted into a profile."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

from genrec_bench.experiments.grid import Selection, selected_rows
from genrec_bench.experiments.suite_files import load_profile
from genrec_bench.experiments.trials import own_place
from genrec_bench.reporting.trials import Searched, Tried, snippet


def test_the_snippet_is_part_of_a_profile() -> None:
    def one(label: str, changes: dict[str, Any], **more: Any) -> Searched:
        return Searched(label, "ml-100k", "quick", (Tried(1, {}, 0.1), Tried(2, changes, 0.2)), **more)

    found = [one("A", {"item_knn": {"decay": 0.3, "neighbours": 50}, "training": {"learning_rate": 1e-05}}),
             one("B", {"training": {"learning_rate": 0.001, "epochs": 4}}),
             one("C", {"apao": {"eta": 0.1, "weight": 0.5}}, stated=frozenset({("apao", "weight")})),
             Searched("D", "ml-100k", "quick", (Tried(1, {}, 0.1), Tried(2, {"tiger": {"width": 8}}, None)))]
    text = snippet(found, "python benchmark.py tune --suite mine")
    assert tomllib.loads(text) == {"datasets_settings": {"ml-100k": {
        "item_knn": {"decay": 0.3, "neighbours": 50}, "training": {"epochs": 4}, "apao": {"eta": 0.1}}}}
    assert "#   python benchmark.py tune --suite mine\n" in text
    for held in ("training.learning_rate = 1e-05 of A: rows differ", "training.learning_rate = 0.001 of B: rows differ",
                 "apao.weight = 0.5 of C: the row itself states it"):
        assert f"# not here: {held}" in text
    assert "D" not in text.replace("NDCG", "")


def test_the_snippet_has_a_table_for_a_row_that_a_profile_can_name() -> None:
    """Its settings are its own, whatever other rows chose and whatever the row states."""
    changes = {"training": {"learning_rate": 0.003}, "apao": {"weight": 0.1, "weights": "equal"}}
    trials = Tried(1, {}, 0.1), Tried(2, changes, 0.2)
    own = Searched("A", "apao_office", "quick", trials, frozenset({("apao", "weight")}),
                   best_row={"backbone": "TIGER", "method": "APAO-Pointwise", "objective": "apao"})
    kept = Searched("B", "apao_office", "quick", (*trials[:1], Tried(2, changes, 0.05)), best_row=own.best_row)
    text = snippet([own, kept], "")
    assert tomllib.loads(text) == {"best": [{"dataset": "apao_office", "settings": changes, "row": {
        "backbone": "TIGER", "method": "APAO-Pointwise"}}]} and "not here" not in text
    other = Searched("C", "apao_office", "quick", (*trials[:1], Tried(2, {"training": {"learning_rate": 0.001}}, 0.3)))
    assert "# not here: training.learning_rate = 0.001 of C: rows differ" in snippet([own, other], "")
    network = Searched("D", "apao_office", "quick", (*trials[:1], Tried(2, {"tiger": {"dropout": 0.2}}, 0.3)),
                       best_row=own.best_row)
    assert tomllib.loads(snippet([network], "")) == {"datasets_settings": {"apao_office": {"tiger": {"dropout": 0.2}}}}
    folder = Searched("A", "mine (folder)", "quick", trials, named=False, best_row=own.best_row)
    assert "a profile has no settings of a folder" in snippet([folder], "")


def test_a_profile_names_the_method_itself_and_not_its_variants() -> None:
    rows = {row["label"]: row for row in selected_rows(Selection("apao", "standard", grid="full"))
            if "label" in row}
    assert own_place(rows["TIGER + APAO-Pointwise"]) == {
        "backbone": "TIGER", "method": "APAO-Pointwise", "objective": "apao"}
    for variant in (", hard maximum", ", as released", ", values of Table 5"):
        assert own_place(rows[f"TIGER + APAO-Pointwise{variant}"]) is None
    assert own_place(rows["TIGER + MSL"]) is None and own_place(rows["TIGER + CE → DPO"]) is None


def test_a_profile_s_own_settings_that_were_tried_and_are_not_the_best_are_named() -> None:
    best, = (one for one in load_profile("standard")["best"] if one["row"]["method"] == "APAO-Pointwise")
    search = Searched("A", best["dataset"], "standard", (Tried(1, {}, 0.3), Tried(2, best["settings"], 0.2)),
                      best_row={**best["row"], "objective": "apao"})
    assert "# remove its [[best]] from profile standard: it holds trial 2, with 0.2000" in snippet([search], "")
    for other in (replace(search, profile="quick"), replace(search, trials=(*search.trials[:1], Tried(2, {"apao": {
            "eta": 0.5}}, 0.2)))):
        assert "[[best]]" not in snippet([other], "")


def test_a_setting_that_trials_have_their_own_value_of_is_no_choice_for_runs() -> None:
    search = Searched("A", "apao_office", "standard", (Tried(1, {}, 0.1), Tried(2, {"training": {
        "epochs": 25, "learning_rate": 0.001}}, 0.2)), cheaper={"training": {"epochs": 15}})
    text = snippet([search], "")
    assert tomllib.loads(text)["datasets_settings"]["apao_office"]["training"] == {"learning_rate": 0.001}
    assert "(2 tried, with training.epochs = 15)" in text
    assert "# not here: training.epochs = 25 of A: trials have a value of their own" in text
