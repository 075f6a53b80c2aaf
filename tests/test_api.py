"""The suite from Python: a plain script, and what is refused before anything is written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec_bench import api
from genrec_bench.cli import main
from genrec_bench.contracts import Rankings
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.evaluate import score
from genrec_bench.objectives.base import Objective
from genrec_bench.results.records import RecordStore
from tests.small_records import record_of
from tests.test_cli import ROOT, TINY, environment

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

SETTINGS = {"tiger": {"width": 16, "head_width": 8, "feed_forward_width": 32}}
SCRIPT = '''
import sys
from dataclasses import dataclass

from genrec_bench.api import compare, load_records, register_metric, register_objective, run_suite
from genrec_bench.metrics.base import Metric
from genrec_bench.objectives.base import Objective

data, results = sys.argv[1:]
small = {"tiger": {"width": 16, "head_width": 8, "feed_forward_width": 32}}


@register_metric("first")
@dataclass(frozen=True)
class First(Metric):
    """Whether the target is first."""

    def gain(self, ranks):
        return (ranks == 1).astype(float)


@register_objective("summed")
@dataclass(frozen=True)
class Summed(Objective):
    """Negative log-probability of the item."""

    def loss(self, inputs):
        return -inputs.target_token_logps.sum(dim=1)


if __name__ == "__main__":
    made = run_suite("apao", profile="smoke", datasets=[data], baselines=["item_knn"], seeds=[0],
                     rows=["TIGER + cross-entropy"], results=results, **small)
    stored = load_records(results)
    assert sorted(r.run_id for r in made) == [r.run_id for r in stored] and len(stored) == 2
    assert all("first@10" in r.metrics for r in stored)
    verdict = compare(Summed, profile="smoke", datasets=[data], results=results, **small)
    (record,) = verdict.records
    assert record.seed == 0 and record.config["objectives"][0]["name"] == "summed"
    assert len(record.identity["objectives"][0]["source"]) == 64
    print(*verdict.sentences, sep="\\n")
'''
# as in a notebook: the class is in no file
CELL = '''
from genrec_bench.api import compare
from genrec_bench.core.errors import UserError
from genrec_bench.objectives.base import Objective

class Mine(Objective):
    def loss(self, inputs):
        return -inputs.target_token_logps.sum(dim=1)

try:
    compare(Mine, profile="smoke", results="no/such")
except UserError as error:
    print(error)
'''


@pytest.fixture(autouse=True)
def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it, and the papers' data are not looked for."""
    monkeypatch.delenv("GENREC_BENCH_DATA", raising=False)
    registry.objectives.names()
    monkeypatch.setattr(registry.objectives, "_classes", dict(registry.objectives._classes))
    yield


class Sound(Objective):
    """Negative log-probability of the item."""

    def loss(self, inputs: Any) -> torch.Tensor:
        return -inputs.target_token_logps.sum(dim=1)


class Mean(Objective):
    """No loss a row."""

    def loss(self, inputs: Any) -> torch.Tensor:
        return -inputs.target_token_logps.mean()


def test_a_plain_script(toy_folder: Path, tmp_path: Path) -> None:
    """Registers, runs, reads and compares; the class is in the script itself."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), str(toy_folder), str(tmp_path / "results")], cwd=tmp_path,
                          capture_output=True, text=True, env=environment(PYTHONPATH=str(ROOT)), check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and "TIGER + summed" in lines[0] and "Item-kNN" in lines[0]
    assert (tmp_path / "results/reports/compare/summed/comparison.md").is_file()


def test_a_class_in_no_file_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", CELL], cwd=ROOT, capture_output=True, text=True, env=environment(),
                          check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("class Mine is in no file") and "FILE.py:CLASS" in done.stdout


def test_run_suite_gives_what_the_command_gives(toy_folder: Path, tmp_path: Path) -> None:
    words = ["run", "--suite", "apao", "--profile", "smoke", "--datasets", str(toy_folder), "--baselines", "item_knn",
             "--row", "TIGER + cross-entropy", *TINY, "--jobs", "1", "--results", str(tmp_path / "command")]
    assert main(words) == 0
    made = api.run_suite("apao", profile="smoke", datasets=[toy_folder], baselines=["item_knn"],
                         rows=["TIGER + cross-entropy"], results=tmp_path / "python", **SETTINGS)
    there = RecordStore(tmp_path / "command")
    assert {r.run_id for r in made} == {r.run_id for r in there.read_all()} and len(made) == 2
    for record in made:
        assert there.read(record.run_id).metrics == record.metrics
        assert there.ranks_bytes(record) == RecordStore(tmp_path / "python").ranks_bytes(record)
    assert (tmp_path / "python/reports/apao/report.md").is_file()
    assert api.load_records(str(tmp_path / "python")) == sorted(made, key=lambda r: r.run_id)


@pytest.mark.parametrize(("change", "message"), [
    ({"datasets": "ml-100k"}, r"a list of names is needed, such as \['ml-100k'\]"),
    ({"beside": "cross_entropy"}, r"a list of names is needed, such as \['cross_entropy'\]"),
    ({"profile": "smok"}, "unknown profile 'smok'.*Did you mean 'smoke'"),
    ({"backbone": "tigr"}, "unknown backbone 'tigr'.*Did you mean 'tiger'"),
    ({"training": {"epohcs": 2}}, "unknown setting 'epohcs' in training. Did you mean 'epochs'"),
    ({"trainng": {"epochs": 2}}, "unknown part 'trainng'.*Did you mean 'training'"),
    ({"training": 2}, r"training must be a dictionary of settings such as training=\{"),
    ({"device": "gpu"}, "cpu, cuda or cuda:N"),
    ({"data_dir": "no/such"}, "no/such, which is not a folder"),
    ({"jobs": 2}, "jobs=2 needs the objective as"),
    ({"objective": Sound()}, "objective must be a class, a registered name or"),
    ({"objective": Objective}, "class Objective has no loss"),
    ({"objective": int}, "int is in no file"),
    ({"objective": Path}, "Path is no objective"),
    ({"objective": "sond"}, "unknown objective 'sond'"),
    ({"objective": "no_such.py:Mine"}, "cannot read the plug-in file no_such.py"),
    ({"objective": Mean}, "objective mean breaks its contract .*check=False"),
])
def test_compare_refuses_before_anything_is_written(change: dict[str, Any], message: str, toy_folder: Path,
                                                    tmp_path: Path) -> None:
    given = {"objective": Sound, "profile": "smoke", "datasets": [toy_folder], "results": tmp_path / "results",
             **change}
    with pytest.raises(UserError, match=message):
        api.compare(given.pop("objective"), **given)
    assert not (tmp_path / "results").exists()


def test_the_data_folder_of_the_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREC_BENCH_DATA", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="GENREC_BENCH_DATA points at"):
        api.run_suite("apao", profile="smoke", datasets=["apao_office"], results=tmp_path / "results")


def test_merge_and_export(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    record = record_of("ml-100k", "tiger", 0)
    ranks = Rankings(*(np.array([1, 0, 3]) for _ in range(3)))
    RecordStore(tmp_path / "a").write(replace(record, metrics=score(ranks)), ranks, ranks)
    with pytest.raises(UserError, match="no folder of records at .*none"):
        api.merge([tmp_path / "a", tmp_path / "none"], tmp_path / "b")
    assert api.merge([str(tmp_path / "a")], str(tmp_path / "b")).moved == 1
    done = api.export(tmp_path / "x.csv", results=tmp_path / "b", suite="apao", datasets=["ml-100k"], per="user")
    assert (done.runs, done.lines) == (1, 3) == (1, len((tmp_path / "x.csv").read_text().splitlines()) - 1)
    with pytest.raises(UserError, match="none of the 1 records"):
        api.export(tmp_path / "y.csv", results=tmp_path / "b", suite="bear-sid")


def test_check_data_names_what_is_wrong(toy_folder: Path) -> None:
    found = api.check_data([toy_folder])["toy"]
    assert found["counts"]["users"] == 50 and found["notes"]
    for change, message in (({"datasets": [toy_folder], "ml-100k": {}}, "and no ml-100k"),
                            ({"datasets": ["ml-10k"]}, "Did you mean 'ml-100k'")):
        with pytest.raises(UserError, match=message):
            api.check_data(**change)
    assert list(api.check_data()) == ["ml-100k"]  # what is here without a data folder


def test_load_records_of_no_folder(tmp_path: Path) -> None:
    assert api.load_records(tmp_path) == []
    with pytest.raises(UserError, match="no folder of records at .*absent"):
        api.load_records(tmp_path / "absent")
