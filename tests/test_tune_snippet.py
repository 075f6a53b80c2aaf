"""What `tune` prints to be pasted into a profile."""

from __future__ import annotations

import tomllib
from typing import Any

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


def test_a_setting_that_trials_have_their_own_value_of_is_no_choice_for_runs() -> None:
    search = Searched("A", "apao_office", "standard", (Tried(1, {}, 0.1), Tried(2, {"training": {
        "epochs": 25, "learning_rate": 0.001}}, 0.2)), cheaper={"training": {"epochs": 15}})
    text = snippet([search], "")
    assert tomllib.loads(text)["datasets_settings"]["apao_office"]["training"] == {"learning_rate": 0.001}
    assert "(2 tried, with training.epochs = 15)" in text
    assert "# not here: training.epochs = 25 of A: trials have a value of their own" in text
