"""What the operating system refuses: one line and exit code 2, where it can be before any work."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.test_cli import call


@pytest.mark.parametrize("option", ["--results", "--reports"])
def test_a_folder_that_cannot_be_written_is_refused_first(option: str, tmp_path: Path, capsys: Any,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights are made up, for whoever may do everything has them all."""
    locked = tmp_path / "locked"
    locked.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and real(path, mode))
    words = ("--suite", "apao", "--profile", "smoke", "--results", tmp_path / "results", option, locked / "below")
    assert call("run", *words) == 2
    assert capsys.readouterr().err == (f"error: {option} points at {locked / 'below'}, but {locked} cannot be written. "
                                       "Choose another folder or mend its rights.\n")
    assert not (tmp_path / "results").exists() and not list(locked.iterdir())


@pytest.mark.parametrize(("raised", "told"), [
    (OSError(28, "No space left on device"), "error: No space left on device. "),
    (OSError(28, "No space left on device", "/full/x"), "error: /full/x: No space left on device. "),
    (PermissionError(13, "Permission denied", "/x"), "error: /x: Permission denied. "),
    (FileNotFoundError(2, "No such file or directory", "/proc/xx"), "error: /proc/xx: No such file or directory. "),
    (OSError("odd"), "error: odd. ")])
def test_what_the_operating_system_refuses_is_one_line(raised: OSError, told: str, capsys: Any,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(args: Any) -> int:
        raise raised

    monkeypatch.setattr("genrec_bench.commands.list.run", fails)
    assert call("list", "suites") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(told) and err.count("\n") == 1 and "--reports" in err


def test_a_closed_pipe_and_ctrl_c_are_no_errors(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for raised, code in ((KeyboardInterrupt(), 130), (BrokenPipeError(32, "Broken pipe"), 0)):
        def fails(args: Any, raised: BaseException = raised) -> int:
            raise raised

        monkeypatch.setattr("genrec_bench.commands.list.run", fails)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        assert call("list", "suites") == code
