"""What `tune` prints to be pasted into a profile."""

from __future__ import annotations

import tomllib
from typing import Any

from genrec_bench.reporting.trials import Searched, Tried, snippet


def test_the_snippet_is_part_of_a_profile() -> None:
    def one(label: str, changes: dict[str, Any], **more: Any) -> Searched:
        return Searched(label, "ml-100k", "quick", (Tried(1, {}, 0.1), Tried(2, changes, 0.2)), **more)

    found = [one("A", {"item_knn": {"decay": 0.3, "neighbours": 50}}),
             one("A2", {"training": {"learning_rate": 1e-05}}),
             one("B", {"training": {"learning_rate": 0.001}}), one("B2", {"tiger": {"dropout": 0.5}}),
             one("C", {"apao": {"eta": 0.1}}),
             Searched("D", "ml-100k", "quick", (Tried(1, {}, 0.1), Tried(2, {"tiger": {"width": 8}}, None)))]
    text = snippet(found, "python benchmark.py tune --suite mine")
    assert tomllib.loads(text) == {"datasets_settings": {"ml-100k": {
        "item_knn": {"decay": 0.3, "neighbours": 50}, "tiger": {"dropout": 0.5}, "apao": {"eta": 0.1}}}}
    assert "#   python benchmark.py tune --suite mine\n" in text
    for held in ("1e-05 of A2", "0.001 of B"):
        assert f"# not here: training.learning_rate = {held}: rows differ" in text
    assert "D" not in text.replace("NDCG", "")
    assert "a profile has no settings of a folder" in snippet([one("A", {"item_knn": {"decay": 0.3}}, named=False)], "")


def test_what_was_chosen_together_is_held_whole_or_not_at_all() -> None:
    """A's weight cannot be held, so its rate is not, nor B's, who chose that rate with a tau; C has none of it."""
    def one(label: str, changes: dict[str, Any]) -> Searched:
        return Searched(label, "ml-100k", "quick", (Tried(1, {}, 0.1), Tried(2, changes, 0.2)),
                        frozenset({("apao", "weight")}) if label == "A" else frozenset())

    text = snippet([one("B", {"training": {"learning_rate": 0.003}, "msl": {"tau": 2.0}}),
                    one("A", {"training": {"learning_rate": 0.003}, "apao": {"weight": 0.1}}),
                    one("C", {"item_knn": {"decay": 0.3}})], "")
    assert tomllib.loads(text) == {"datasets_settings": {"ml-100k": {"item_knn": {"decay": 0.3}}}}
    assert "# not here: apao.weight = 0.1 of A: the row itself states it" in text
    assert "# not here: training.learning_rate = 0.003 of B, A: A chose it together with" in text
    assert "# not here: msl.tau = 2.0 of B: B chose it together with" in text


def test_a_setting_that_trials_have_their_own_value_of_is_no_choice_for_runs() -> None:
    search = Searched("A", "apao_office", "standard", (Tried(1, {}, 0.1), Tried(2, {"training": {
        "epochs": 25, "learning_rate": 0.001}}, 0.2)), cheaper={"training": {"epochs": 15}})
    text = snippet([search], "")
    assert not tomllib.loads(text)
    assert "(2 tried, with training.epochs = 15)" in text
    assert "# not here: training.epochs = 25 of A: trials have a value of their own" in text
