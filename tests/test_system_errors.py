"""What the operating system refuses is one line and exit code 2; what it ends leaves no process behind."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import is_alive, until
from tests.test_cli import ROOT, call, environment


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
                                       "Choose another folder or fix its rights.\n")
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


def test_a_home_that_cannot_be_written_is_no_news() -> None:
    """matplotlib says in two lines that it takes another folder."""
    code = "import genrec_bench.reporting.figures.style, genrec_bench.reporting.comparison"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                          env={**environment(), "HOME": "/proc/none", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "",
                               "MPLCONFIGDIR": ""})
    assert (done.stdout, done.stderr) == ("", "")


def test_a_closed_pipe_and_ctrl_c_are_no_errors(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = RuntimeError("as Python 3.11 does where a class is made")
    wrapped.__cause__ = KeyboardInterrupt()
    for raised, code in ((KeyboardInterrupt(), 130), (wrapped, 130), (BrokenPipeError(32, "Broken pipe"), 0)):
        def fails(args: Any, raised: BaseException = raised) -> int:
            raise raised

        monkeypatch.setattr("genrec_bench.commands.list.run", fails)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        assert call("list", "suites") == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_are_like_ctrl_c(number: int, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code of the signal; one that was to be ignored, as under nohup, is."""
    monkeypatch.setattr("genrec_bench.commands.list.run", lambda args: os.kill(os.getpid(), number) or 0)
    assert call("list", "suites") == 128 + number and signal.getsignal(number) == signal.SIG_DFL
    assert "the same command goes on" in capsys.readouterr().err
    signal.signal(number, signal.SIG_IGN)
    try:
        assert call("list", "suites") == 0 and signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, signal.SIG_DFL)


def test_an_output_without_the_letters_is_no_error(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written by their numbers, and JSON stays JSON."""
    folder = toy_folder.rename(toy_folder.with_name("tïny"))

    def printed(*words: str | Path) -> str:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
        monkeypatch.setattr(sys, "stdout", stream)
        assert call(*words) == 0
        stream.flush()
        return stream.buffer.getvalue().decode("ascii")

    assert "t\\xefny" in printed("data", "check", "--datasets", folder)
    assert list(json.loads(printed("data", "check", "--json", "--datasets", folder))) == ["tïny"]
    assert "TIGER + CE \\u2192 CE" in printed("plan", "--suite", "apao", "--profile", "smoke", "--row",
                                             "TIGER + CE → CE", "--datasets", folder)


def test_a_name_that_is_no_text_is_refused(capsys: Any) -> None:
    """A record could not hold it."""
    assert call("run", "--suite", "apao", "--results", "bad\udcef") == 2
    assert capsys.readouterr().err.startswith("error: 'bad\\udcef' is not UTF-8 text")


PARENT = """
import os, subprocess, sys, time
from genrec_bench.core.ending import children, start_child
child = ("import sys, time; from genrec_bench.core.ending import begin_child; "
         "begin_child(int(sys.argv[1])); time.sleep(60)")
own = subprocess.Popen([sys.executable, "-c", child, str(os.getpid())], start_new_session=True)
with children() as found:
    found |= {0: start_child("fork", time.sleep, 60), 1: start_child("spawn", time.sleep, 60)}
    print(own.pid, *(process.pid for process in found.values()), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_children_end_with_a_parent_that_is_killed() -> None:
    """One in a session of its own, as RecBole's is, a forked one, as those that draw, and a spawned walker."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, env=environment(), stdout=subprocess.PIPE)
    children = list(map(int, parent.stdout.readline().split()))
    assert len(children) == 3 and all(map(is_alive, children))
    parent.kill()
    until(lambda: not any(map(is_alive, children)), 20)
    parent.communicate()
