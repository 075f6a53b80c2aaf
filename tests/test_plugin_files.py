"""Objectives in a user's own file: what is registered, what is refused, and the command `check`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genrec_bench import cli
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.objectives.cross_entropy import CrossEntropy
from genrec_bench.running.plugin_file import load_objective
from genrec_bench.training.objective_checks import CHECKS
from genrec_bench.training.planted import planted
from tests.test_check import SHAPE, failed

PLUGIN = '''
from genrec_bench.objectives.base import Objective
from genrec_bench.objectives.cross_entropy import CrossEntropy


class MyNLLLoss(Objective):
    """The mean over tokens."""

    def loss(self, inputs):
        return -inputs.target_token_logps.sum(dim=1) / inputs.is_token.sum(dim=1)
'''
TUNED = '''
from __future__ import annotations

from dataclasses import dataclass

from genrec_bench.objectives.base import Objective
from genrec_bench.core.registry import objectives
from genrec_bench.core.settings import setting


@objectives.register("tuned_loss")
@dataclass(frozen=True)
class Tuned(Objective):
    """Has a setting."""

    scale: float = setting(2.0, "factor", low=0.0)

    def loss(self, inputs):
        return -self.scale * inputs.target_token_logps.sum(dim=1)


class Wrong(Objective):
    def loss(self, inputs):
        return inputs.target_token_logps.sum()


class _Hidden(Objective):
    pass


class Unrelated:
    pass
'''


@pytest.fixture(autouse=True)
def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    registry.objectives.names()
    monkeypatch.setattr(registry.objectives, "_classes", dict(registry.objectives._classes))
    monkeypatch.setitem(cli.VERBS, "check", "check a plug-in against the contract tests")
    yield
    for name in [n for n in sys.modules if n.startswith("genrec_bench_plugin_")]:
        del sys.modules[name]


def written(folder: Path, text: str, name: str = "my_loss.py") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_plain_class_becomes_a_registered_frozen_dataclass(tmp_path: Path) -> None:
    path = written(tmp_path, PLUGIN)
    assert load_objective(path) == load_objective(f"{path}:MyNLLLoss") == "my_nll_loss"
    cls = registry.objectives.get("my_nll_loss")
    assert cls.source_digest == hashlib.sha256(PLUGIN.encode()).hexdigest() and failed(cls) == set()
    assert registry.objectives.build({"name": "my_nll_loss"}) == cls()
    assert list(tmp_path.iterdir()) == [Path(path)], "nothing is written beside the file"


def test_a_changed_file_replaces_what_it_registered(tmp_path: Path) -> None:
    path = written(tmp_path, PLUGIN)
    load_objective(path)
    old = registry.objectives.get("my_nll_loss")
    load_objective(written(tmp_path, PLUGIN.replace("is_token.sum", "is_token.any")))  # same size, same second
    new = registry.objectives.get("my_nll_loss")
    assert new is not old and new.source_digest != old.source_digest
    inputs = planted(0).inputs(CrossEntropy())
    assert float(new().loss(inputs)[0].detach()) == pytest.approx(3 * float(old().loss(inputs)[0].detach()))


def test_a_class_that_registers_itself_keeps_its_name_and_settings(tmp_path: Path) -> None:
    path = written(tmp_path, TUNED)
    assert load_objective(f"{path}:Tuned") == "tuned_loss"
    assert registry.objectives.build({"name": "tuned_loss", "scale": 3}).scale == 3.0
    with pytest.raises(UserError, match="at least 0"):
        registry.objectives.build({"name": "tuned_loss", "scale": -1})
    assert load_objective(f"{path}:Wrong") == "wrong"


@pytest.mark.parametrize(("text", "suffix", "message"), [
    (TUNED, "", r"my_loss.py has 2 objectives: say which, \S+my_loss.py:Tuned or \S+my_loss.py:Wrong\."),
    (TUNED, ":Tuend", "unknown class 'Tuend' in \\S+my_loss.py. Did you mean 'Tuned'"),
    (TUNED, ":Unrelated", "class Unrelated is no objective; one is a class that inherits"),
    (PLUGIN, ":CrossEntropy", "unknown class 'CrossEntropy'"),
    ("x = 1\n", "", "has 0 objectives; one is a class that inherits"),
    ("\n\nvalue = 1 / 0\n", "", r"my_loss.py, line 3, raises ZeroDivisionError: division by zero"),
    ("def f(:\n    pass\n", "", r"my_loss.py, line 1, raises SyntaxError"),
    ("import no_such_module_here\n", "", r"line 1, raises ModuleNotFoundError: No module named"),
    ("import sys\nsys.exit(3)\n", "", "line 2, raises SystemExit: 3"),
    (TUNED.replace("tuned_loss", "cross_entropy"), ":Tuned",
     "my_loss.py, line 11: objective 'cross_entropy' is registered twice, first in \\S+/cross_entropy.py. Give yours"),
    (PLUGIN.replace("MyNLLLoss", "Dpo"), "", "Give yours another name"),
    (PLUGIN.replace("    def loss", "    scale: float = 2.0\n\n    def loss"), "",
     "class MyNLLLoss has the fields scale but is no dataclass. Put @dataclass"),
])
def test_a_wrong_file_is_one_clear_message(tmp_path: Path, text: str, suffix: str, message: str,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=message):
        load_objective(path + suffix)
    assert cli.main(["check", path + suffix]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and "Traceback" not in told.err


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    written(tmp_path, PLUGIN)
    with pytest.raises(UserError, match=r"cannot read .*my_los.py: No such file .*Did you mean .*my_loss.py"):
        load_objective(f"{tmp_path / 'my_los.py'}:MyNLLLoss")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "cross_entropy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS) + 1 and all(line.startswith("ok  ") for line in lines[:-1])
    assert lines[-1] == f"cross_entropy: {len(CHECKS)} checks, none failed."
    path = written(tmp_path, TUNED)
    assert cli.main(["check", f"{path}:Tuned"]) == 0
    capsys.readouterr()
    assert cli.main(["check", f"{path}:Wrong"]) == 1
    out = capsys.readouterr().out
    assert f"FAILED  {SHAPE}: expected a tensor of shape (6,), a loss a row; saw shape ()" in out
    assert cli.main(["check", "cross_entropi"]) == 2
    assert "unknown plug-in 'cross_entropi'. Did you mean 'cross_entropy'" in capsys.readouterr().err
