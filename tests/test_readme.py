"""The README's own example is followed to the letter in a copy of the tree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippet(language: str, needle: str) -> str:
    """The fenced block of one language that holds a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)
    found = [block for block in blocks if needle in block]
    assert len(found) == 1, f"{len(found)} blocks of {language} hold {needle!r}"
    return found[0]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the suite needs to run."""
    for name in ("genrec_bench", "baselines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("benchmark.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_an_objective_in_one_file_and_a_suite_in_another(tree: Path, toy_folder: Path) -> None:
    (tree / "genrec_bench/objectives/label_smoothing.py").write_text(snippet("python", '"label_smoothing"'))
    (tree / "genrec_bench/experiments/suites/mine.toml").write_text(snippet("toml", 'name = "mine"'))
    done = subprocess.run(
        [sys.executable, "benchmark.py", "--suite", "mine", "--profile", "smoke", "--datasets", str(toy_folder),
         "--threads", "1", "--set", "label_smoothing.epsilon=0.3"],
        cwd=tree, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_text()) for p in (tree / "results/local").glob("*/*.json")]
    labels = {r["label"]: r["config"] for r in records}
    assert set(labels) == {"Item-kNN", "TIGER + label smoothing"}
    assert labels["TIGER + label smoothing"]["objectives"] == [
        {"name": "label_smoothing", "epsilon": 0.3, "weight": 1.0}]
    assert "TIGER + label smoothing" in (tree / "results/local/reports/mine/report.md").read_text()


def test_the_example_is_the_file_it_names_and_short() -> None:
    example = snippet("python", '"label_smoothing"')
    assert example == (ROOT / "examples/label_smoothing.py").read_text() and len(example.splitlines()) < 30


def test_commands_of_the_readme_exist() -> None:
    """Every `benchmark.py` line of the README names a verb and options that the command line knows."""
    from genrec_bench.cli import VERBS

    lines = re.findall(r"^python benchmark\.py (.+?)(?:\s+#.*)?$", README, flags=re.M)
    assert len(lines) >= 6
    for line in lines:
        first = line.split()[0]
        assert first in VERBS or first == "--suite", line


def test_links_of_the_documents_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
