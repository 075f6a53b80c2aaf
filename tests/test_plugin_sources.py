"""Code in a second file: what a plug-in imports is part of its name, and what runs is what was named."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genrec_bench import api
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.running import plugin_sources
from genrec_bench.running.plugin_file import load_objective
from genrec_bench.running.plugin_sources import read_sources

LOSS = '''
"""A loss whose code lies elsewhere."""
{imports}
from genrec_bench.objectives.base import Objective
import torch, json

class Two(Objective):
    def loss(self, inputs):
        {lazy}
        return value()
'''


MODULES = ("two", "helper", "middle", "pack", "bare", "a", "b")  # of the files that tests write


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers, imports and serves is gone after it."""
    registry.objectives.names()
    monkeypatch.setattr(registry.objectives, "_classes", dict(registry.objectives._classes))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(plugin_sources._SERVED, "modules", {})
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] in MODULES or "genrec_bench_plugin_" in n]:
        del sys.modules[name]


def written(folder: Path, **files: str) -> Path:
    """Files below a folder, `__` for a separator; returns two.py."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/').replace('/init', '/__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "two.py"


def loaded(path: Path) -> tuple[str, object]:
    """The digest in the names of its runs, and what its loss gives."""
    registry.objectives._classes.pop("two", None)  # files in two places are two classes, which may not share a name
    name = load_objective(f"{path}:Two")
    objective = registry.objectives.build({"name": name})
    return registry.identity(objective)["source"], objective.loss(None)


VALUE = "def value():\n    return 1\n"
CASES = {  # imports at the top, imports in the function, files; `helper` is the one that is edited
    "beside": ("from helper import value", "", {"helper": VALUE}),
    "lazy": ("", "from helper import value", {"helper": VALUE}),
    "by name": ("import importlib", 'value = importlib.import_module("helper").value', {"helper": VALUE}),
    "star": ("from helper import *", "", {"helper": VALUE}),
    "indirect": ("from middle import value", "", {"middle": "import helper\nvalue = helper.value\n", "helper": VALUE}),
    "circle": ("from middle import value", "", {"middle": "import helper\ndef value():\n    return helper.value()\n",
                                               "helper": f"import middle\n{VALUE}"}),
    "package": ("from pack.helper import value", "", {"pack__init": "", "pack__helper": VALUE}),
    "package itself": ("import pack", "value = pack.value", {"pack__init": VALUE}),
    "relative": ("from pack import value", "", {"pack__init": "from .inner import value\n",
                                               "pack__inner__init": "from ..helper import value\n",
                                               "pack__helper": VALUE}),
    "package's own import": ("import pack.other", "from pack.other import value",
                             {"pack__init": "", "pack__other": "from . import helper\nvalue = helper.value\n",
                              "pack__helper": VALUE}),
    "all of a package": ("from pack import *", "value = helper.value",
                         {"pack__init": "__all__ = ['helper']\n", "pack__helper": VALUE}),
    "folder without __init__": ("import bare.helper", "value = bare.helper.value", {"bare__helper": VALUE}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_edit_of_what_is_imported_changes_name_and_numbers(case: str, tmp_path: Path) -> None:
    """In one process, with an edit of the same size in the same second; other places and orders change nothing."""
    top, lazy, files = CASES[case]
    path = written(tmp_path / "one", two=LOSS.format(imports=top, lazy=lazy or "pass"), **files)
    first, one = loaded(path)
    assert one == 1 and loaded(path) == (first, 1)
    assert not [p for p in path.parent.rglob("*") if p.suffix == ".pyc"], "nothing is written beside the file"
    shutil.copytree(path.parent, tmp_path / "other")
    edited = next(p for p in path.parent.rglob("*.py") if p.read_text().endswith("return 1\n"))
    edited.write_text(edited.read_text().replace("return 1", "return 2"))
    second, two = loaded(path)
    assert two == 2 and second != first
    assert loaded(tmp_path / "other" / "two.py") == (first, 1)


def test_a_file_alone_is_named_by_its_bytes(tmp_path: Path) -> None:
    """The standard library, what is installed, and genrec_bench are no part of it, whatever lies beside."""
    path = written(tmp_path, two="import json, numpy.linalg, genrec_bench.api, no_such_module\nfrom torch import *\n",
                   json="", unused="")
    sources = read_sources(path, path.read_bytes())
    assert sources.modules == {} and sources.digest == read_sources(tmp_path / "x.py", path.read_bytes()).digest


def test_the_order_of_imports_does_not_count(tmp_path: Path) -> None:
    path = written(tmp_path, two="import a, b", a="import b", b="import a")
    one = read_sources(path, b"import a, b").modules
    other = read_sources(path, b"import b, a").modules
    assert set(one) == set(other) == {"a", "b"}
    assert read_sources(path, b"import a").digest != read_sources(path, b"import a, b").digest


def test_a_loss_in_a_package_may_import_relatively(tmp_path: Path) -> None:
    files = {"pack__init": "", "pack__losses__init": "", "pack__helper": VALUE,
             "pack__losses__two": LOSS.format(imports="from ..helper import value", lazy="pass")}
    written(tmp_path, **files)
    digest, value = loaded(tmp_path / "pack" / "losses" / "two.py")
    written(tmp_path, pack__init="# changed")
    assert value == 1 and loaded(tmp_path / "pack" / "losses" / "two.py")[0] != digest


def test_two_plug_ins_with_helpers_of_one_name(tmp_path: Path) -> None:
    one = written(tmp_path / "a", two=LOSS.format(imports="", lazy="from helper import value"), helper=VALUE)
    other = written(tmp_path / "b", two=one.read_text(), helper=VALUE.replace("1", "5"))
    found = [loaded(path) for path in (one, other, one)]
    assert [value for _, value in found] == [1, 5, 1] and found[0] == found[2] != found[1]


def test_a_mistake_in_a_helper_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, two="\n\nimport helper\n", helper="def value(:\n")
    with pytest.raises(UserError, match=r"two.py, line 3, raises SyntaxError: .*\(helper.py, line 1\)"):
        load_objective(str(path))


def test_a_class_is_what_its_file_says_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is in memory already; its name is that of the command."""
    path = written(tmp_path, two=LOSS.format(imports="from helper import value", lazy="pass"), helper=VALUE)
    monkeypatch.syspath_prepend(tmp_path)
    cls = importlib.import_module("two").Two
    name = api._registered(cls)
    assert api._registered(cls) == name
    digest = registry.identity(registry.objectives.build({"name": name}))["source"]
    (tmp_path / "helper.py").write_text(VALUE.replace("1", "2"))
    assert api._registered(cls) == name
    changed = registry.objectives.build({"name": name})
    assert changed.loss(None) == 2 and registry.identity(changed)["source"] != digest
    (tmp_path / "helper.py").write_text(VALUE)
    assert loaded(path) == (digest, 1)


def test_a_class_of_a_script_is_named_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any kind, here an objective: an edit of its file, or of what that imports, gives its runs another name."""
    text = "from dataclasses import dataclass\nfrom genrec_bench.api import register_objective\n" + LOSS.format(
        imports="from helper import value", lazy="pass").replace(
            "class Two", '@register_objective("two")\n@dataclass(frozen=True)\nclass Two')
    written(tmp_path, two=text, helper=VALUE)
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for helper in (VALUE, VALUE, VALUE.replace("1", "2")):
        written(tmp_path, helper=helper)
        registry.objectives._classes.pop("two", None)
        sys.modules.pop("two", None)
        importlib.import_module("two")
        digests.append(registry.identity(registry.objectives.build({"name": "two"}))["source"])
    assert digests[0] == digests[1] != digests[2]
