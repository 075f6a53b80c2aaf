"""`python -m benchmarks scale`: every stage runs, what is kept and merged, and what misses a goal."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import scale, scale_stages
from benchmarks.scale_stages import GOALS, STAGES
from genrec_bench.core import registry

ABOUT = {"commit": "c", "load": "0.1", "versions": "v", "machine": "m"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest data."""
    path = tmp_path_factory.mktemp("made")
    scale_stages.write_folder(path, 100)
    return path


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_measured(stage: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_stages, "DIAGNOSED", 4)
    found = scale_stages.measured(stage, folder)
    assert found["seconds"] >= 0 and 0 <= found["mib_more"] < found["mib"]


def test_made_data_have_the_size_that_is_asked_for(folder: Path) -> None:
    data = registry.datasets.build({"name": "folder", "path": str(folder)}).load(None)
    assert data.num_items == 100 == len(set(map(tuple, data.given_codes.tolist()))) and data.num_users == 50
    assert 10 * 50 <= data.num_interactions <= 30 * 50 and set(GOALS) <= set(STAGES)


def line(items: int, stage: str, seconds: float, mib: float = 100.0) -> scale.Line:
    return {"items": items, "stage": stage, "seconds": seconds, "mib_more": 1.0, "mib": mib, **ABOUT}


def test_what_was_not_measured_again_stays_and_missed_goals_are_bold(tmp_path: Path) -> None:
    """At a million items: 13 s of 12, 0.5 s of 1 but beyond 12 GiB, and no goal for training."""
    old = [line(1_000_000, "split", 9.0), line(100, "split", 9.0)]
    (tmp_path / "scale.csv").write_bytes(scale.pages(old)["scale.csv"])
    training = next(stage for stage in STAGES if stage.startswith("training"))
    new = [line(1_000_000, training, 500.0), line(1_000_000, "data check", 13.0), line(100, "a stage of the past", 1.0),
           line(1_000_000, "split", 0.5, 13_000.0)]
    found = scale.pages(scale.merged(scale.read(tmp_path / "scale.csv"), new))
    table = [row for row in found["scale.md"].decode().splitlines() if row.startswith("|")]
    assert table == ["| stage | 100 items | 1,000,000 items | goal |", "| --- | ---: | ---: | ---: |",
                     "| split | 9.00 s (100) | **0.500 s (13,000)** | 1 s |",
                     "| data check |  | **13.0 s (100)** | 12 s |", f"| {training} |  | 500 s (100) |  |"]
    assert b"<svg" in found["scale.svg"] and len(found["scale.csv"].splitlines()) == 5


@pytest.mark.parametrize(("words", "message"), [
    (["--only", "splitt"], "unknown stage 'splitt' in --only. Did you mean 'split'?"),
    (["--items", "10,100"], "--items: whole numbers from 100, got 10, 100.")])
def test_mistakes_end_with_one_message(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert command.main(["scale", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_stage_that_fails_is_told_and_the_exit_code_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(scale, "_measured_apart", lambda *_: {"failed": "  failed: killed"})
    assert command.main(["scale", "--items", "100", "--only", "split", "--out", str(tmp_path)]) == 1
    assert "split                             failed: killed" in capsys.readouterr().out
