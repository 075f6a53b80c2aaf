"""What may import what, what stays light, and what no Python file of ours may do."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "genrec_bench"
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# Rooms from the ground up, as the documentation draws them: `1: datasets tokenizers ...`.
ROWS = {int(row): names.split() for row, names in
        re.findall(r"^(\d+): (.*)$", re.search(r"^```rows\n(.*?)^```", DOCUMENT, re.M | re.S)[1], re.M)}
ROW_OF = {name: row for row, names in ROWS.items() for name in names}
PLUGINS = ("datasets", "splits", "tokenizers", "backbones", "objectives", "metrics")
READERS = ("results", "analysis", "reporting")  # read records, and import no torch
MAX_LINES = 400


def python_files() -> list[Path]:
    """Every Python file of the repository that is ours."""
    folders = ("genrec_bench", "baselines", "tests", "scripts", "examples", "benchmarks", "docs")
    return sorted([*ROOT.glob("*.py"), *(p for f in folders for p in (ROOT / f).rglob("*.py"))])


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, *, inside: bool = True) -> Iterator[str]:
    """Full names of all modules a file imports, inside functions too; of our own also `from x import module`."""
    for node in ast.walk(tree(path)) if inside else tree(path).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [n if is_ours(n) else node.module for n in names]


def is_ours(name: str) -> bool:
    """Whether a dotted name is a module of the repository."""
    path = ROOT.joinpath(*name.split("."))
    return name.split(".")[0] in ("genrec_bench", "baselines") and (path.is_dir() or path.with_suffix(".py").is_file())


def top(name: str) -> str:
    """`genrec_bench.datasets.base` -> `datasets`"""
    return name.split(".")[1] if "." in name else ""


def module_files() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_room_has_a_row() -> None:
    assert {part_of(p) for p in module_files()} - {"__init__"} == set(ROW_OF)


@pytest.mark.parametrize("path", module_files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_imports_upward(path: Path) -> None:
    """A module imports its own room, the rooms of lower rows, and none beside it."""
    part = part_of(path)
    for name in sorted(n for n in imports(path) if n.split(".")[0] == "genrec_bench"):
        target = top(name)
        if target and target != part:
            assert ROW_OF[target] < ROW_OF[part], f"row {ROW_OF[part]} imports {name}"


@pytest.mark.parametrize("part", PLUGINS)
def test_a_plugin_imports_its_own_room_and_the_ground_only(part: str) -> None:
    for path in sorted((PACKAGE / part).glob("*.py")):
        targets = {top(n) for n in imports(path) if n.split(".")[0] == "genrec_bench"}
        wrong = targets - {part, *ROWS[0], *ROWS[1]}
        assert not wrong, f"{path.name} imports {sorted(wrong)}"


def test_no_module_of_genrec_bench_imports_baselines() -> None:
    for path in module_files():
        assert not [n for n in imports(path) if n.split(".")[0] == "baselines"], path


@pytest.mark.parametrize("part", ["core", "contracts", "metrics", "datasets", "splits", "trie", "evaluate",
                                  "experiments", *READERS])
def test_no_torch_where_only_data_and_records_are_read(part: str) -> None:
    files = sorted((PACKAGE / part).rglob("*.py")) if (PACKAGE / part).is_dir() else [PACKAGE / f"{part}.py"]
    for path in files:
        named = {n.split(".")[0] for n in imports(path, inside=False)}
        heavy = named & {"torch", "recbole", "transformers", "safetensors"}
        assert not heavy, f"{path.relative_to(ROOT)} imports {sorted(heavy)}"


@pytest.mark.parametrize("module", ["genrec_bench", "genrec_bench.cli", "genrec_bench.reporting",
                                    "genrec_bench.results.records", "genrec_bench.experiments.grid"])
def test_importing_is_light(module: str) -> None:
    """No torch, no RecBole, no side effect on sys.argv; under a second of processor time."""
    code = (f"import time; began = time.process_time(); import sys, {module}; spent = time.process_time() - began\n"
            "heavy = sorted({'torch', 'recbole', 'transformers', 'sklearn', 'ray'} & set(sys.modules))\n"
            "print(spent, *heavy)")
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    spent, *heavy = done.stdout.split()
    assert not heavy and float(spent) < 1.0 and time.perf_counter() - began < 60


def test_reports_are_drawn_without_torch() -> None:
    """As on a machine that has neither torch nor RecBole."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "recbole"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import genrec_bench.commands.report, genrec_bench.reporting.markdown, genrec_bench.evaluate
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_plugins_are_listed_built_and_planned_without_torch() -> None:
    """Also where torch is there: it would take seconds to load."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "recbole", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from genrec_bench.core import registry
from genrec_bench.experiments import grid, suite_files
for kind in registry.KINDS:
    for name in kind.names():
        if name != "folder":  # has no path here
            getattr(kind.build({"name": name}), "check", lambda: None)()
for objective in registry.objectives.names():
    registry.objectives.build({"name": objective}).check_depth(4)
for suite in suite_files.suite_names():
    for profile in suite_files.profile_names():
        assert grid.expand(grid.Selection(suite, profile))
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "torch.save", "pandas.read_pickle",
                   "pd.read_pickle"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(path: Path) -> Iterator[str]:
    """Everything a file does that none of ours may do."""
    for name in imports(path):
        if name.split(".")[0] in FORBIDDEN_MODULES:
            yield f"imports {name}"
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = dotted(node.func), {k.arg: k.value for k in node.keywords}
        if name in FORBIDDEN_CALLS or name.endswith((".to_pickle", ".read_pickle")):
            yield f"line {node.lineno}: calls {name}"
        if name == "torch.load" and not is_true(keywords.get("weights_only")):
            yield f"line {node.lineno}: torch.load without weights_only=True"
        for key in ("shell", "allow_pickle"):
            if key in keywords and not is_false(keywords[key]):
                yield f"line {node.lineno}: {key} is not False"


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_executed_because_a_file_said_so(path: Path) -> None:
    assert not list(faults(path))


# the words are cut in two, so that a plain search of the tree for them finds nothing
@pytest.mark.parametrize(("code", "count"), [
    ("import pick" "le", 1), ("from pick" "le import loads", 1), ("ev" "al('1')", 1),
    ("import os\nos.sys" "tem('x')", 1),
    ("import torch\ntorch.lo" "ad('x')", 1), ("import torch\ntorch.load('x', weights_only=True)", 0),
    ("import torch\ntorch.load('x', weights_" "only=False)", 1), ("run('x', shell" "=True)", 1),
    ("run('x', shell=False)", 0),
    ("np.load('x', allow_pick" "le=flag)", 1), ("np.load('x')", 0), ("model.eval()", 0), ("frame.to_pick" "le('x')", 1),
])
def test_the_check_itself(tmp_path: Path, code: str, count: int) -> None:
    path = tmp_path / "code.py"
    path.write_text(code)
    assert len(list(faults(path))) == count


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_documented(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if "tests" not in path.relative_to(ROOT).parts:
        assert len(text.splitlines()) < MAX_LINES
    if text.strip():
        assert ast.get_docstring(tree(path)), "a module says in one line what it is"


def test_the_training_loop_and_the_search_stay_readable() -> None:
    assert len((PACKAGE / "training" / "loop.py").read_text().splitlines()) < 200
    assert len((PACKAGE / "search" / "beam.py").read_text().splitlines()) < 200
