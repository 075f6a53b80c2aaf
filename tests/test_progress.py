"""What a long run says outside a terminal, and of a run that says nothing itself."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from genrec_bench.core import progress
from genrec_bench.core.progress import Bars
from tests.processes import until


def test_outside_a_terminal_there_is_a_line_an_epoch_but_not_more_than_one_a_minute(
        capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    bars = Bars(2, 0)
    bars.began("a", "SASRec, toy, seed 0", "epoch")
    for epoch, seconds in enumerate((59.0, 1.0, 30.0, 29.0, 1.0, 200.0, 61.0), 1):
        now[0] += seconds
        bars.step("a", epoch, 9, "loss 1.0000")
    bars.close()
    assert capsys.readouterr().err.splitlines() == [
        f"SASRec, toy, seed 0: epoch {epoch} of 9, loss 1.0000" for epoch in (2, 5, 6, 7)]


def test_a_run_that_is_silent_is_told_of(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, then after twice the time; anew after its next epoch. A run that is over is not."""
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.2)
    told: list[str] = []
    bars = Bars(2, 0)
    monkeypatch.setattr(bars, "say", told.append)
    bars.began("a", "SASRec, toy, seed 0", "batch")
    bars.began("b", "BERT4Rec, toy, seed 0", "epoch")
    bars.step("a", 3, 9)
    bars.ended("b")
    until(lambda: told, 5)
    time.sleep(0.1)
    assert told == ["SASRec, toy, seed 0: nothing for 0 minutes, since batch 3 of 9. It is slow, or it hangs."]
    until(lambda: len(told) == 2, 5)
    bars.close()
    bars._listener.join(5)
    assert not bars._listener.is_alive()
