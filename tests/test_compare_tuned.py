"""`compare --tune`: the new objective's settings are tried first, like those of the stored rows."""

from __future__ import annotations

from typing import Any

import pytest

from genrec_bench.core.seeds import TUNING_SEED
from genrec_bench.running.comparing import Question, _datasets
from tests.small_records import record_of
from tests.test_cli import files
from tests.test_compare import World, forget_plugins, stored, world  # noqa: F401  fixtures


def test_settings_are_tried_and_the_best_by_validation_is_compared(world: World, capsys: Any) -> None:  # noqa: F811
    """The space: what the class lists and the suites' learning rates; trials are made once."""
    assert world.compare("--tune", "3") == 0  # at the seeds of the stored runs, whatever is chosen
    said = capsys.readouterr().err
    tried = [r for r in world.records if r.seed == TUNING_SEED]
    runs = [r for r in world.records if r.seed != TUNING_SEED]
    assert len(tried) == 3 and [r.seed for r in runs] == [0, 1]

    def settings(record: Any) -> tuple[float, float]:
        return record.config["objectives"][0]["epsilon"], record.config["training"]["learning_rate"]

    assert len({settings(r) for r in tried}) == 3 and {e for e, _ in map(settings, tried)} <= {0.05, 0.1, 0.2}
    best = max(tried, key=lambda r: r.metrics["valid_ndcg@10"])
    assert {settings(r) for r in runs} == {settings(best)}
    sentence = next(line for line in said.splitlines() if "trials validation chose" in line)
    assert sentence.startswith("toy: of 3 trials") and f"{best.metrics['valid_ndcg@10']:.4f}" in sentence
    assert sentence in world.report()
    kept = files(world.results / "toy")
    assert world.compare("--tune", "3") == 0 and files(world.results / "toy") == kept


def test_a_setting_that_is_given_is_not_tried(world: World, capsys: Any) -> None:  # noqa: F811
    assert world.compare("--tune", "9", "--seeds", "0", "--set", "label_smoothing.epsilon=0.15", "--set",
                         "training.learning_rate=1e-3") == 0
    assert "1 trials, not 9: its space has no more" in capsys.readouterr().err
    assert {r.config["objectives"][0]["epsilon"] for r in world.records} == {0.15}


@pytest.mark.parametrize("number", ["0", "-1"])
def test_no_trials_are_a_mistake(number: str, world: World, capsys: Any) -> None:  # noqa: F811
    assert world.compare("--tune", number) == 2
    assert "--tune must be at least 1" in capsys.readouterr().err and not world.results.exists()


def test_data_sets_are_those_that_stored_runs_have() -> None:
    """Of the profile's, where the user names none; all of them where nothing of the backbone is stored."""

    class Stored:
        def read_results(self) -> list[Any]:
            return [record_of("ml-100k", "tiger", 0), record_of("apao_office", "sasrec", 0)]

    quick = Question("cross_entropy", profile="quick")
    assert _datasets(quick, Stored()) == ("ml-100k",)
    assert _datasets(Question("cross_entropy", profile="quick", datasets=("apao_yelp",)), Stored()) == ("apao_yelp",)
    standard = Question("cross_entropy", profile="standard")
    assert _datasets(standard, Stored()) == standard.texts and len(standard.texts) > 1
