"""Tracking: what the libraries are told, that no number depends on it, and that nothing leaves the machine unasked."""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genrec_bench.cli import main
from genrec_bench.core.errors import UserError
from genrec_bench.core.progress import Quiet
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.results.records import RunRecord
from genrec_bench.running import tracking
from genrec_bench.running.runner import run_one
from genrec_bench.running.workspace import Prepared, Workspace
from tests.conftest import toy_codes
from tests.small_records import record_of

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

SMALL = {"tiger": {"width": 8, "num_layers": 1, "num_heads": 1, "head_width": 8, "feed_forward_width": 8},
         "training": {"epochs": 2, "batch_size": 32, "accumulation": 1}}
VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE",
             "WANDB_MODE", "WANDB_PROJECT", "WANDB_ERROR_REPORTING")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the libraries' variables is set, and what is set here is gone afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, toy_interactions: Any) -> Path:
    folder = tmp_path_factory.mktemp("tracking") / "toy"
    folder.mkdir()
    inter = {u: s.tolist() for u, s in zip(toy_interactions.user_ids, toy_interactions.sequences, strict=True)}
    (folder / "Toy.inter.json").write_text(json.dumps(inter))
    (folder / "Toy.index.json").write_text(json.dumps({str(i): codes for i, codes in enumerate(toy_codes().tolist())}))
    return folder


def prepared(data: Path, workspace: Workspace) -> Prepared:
    (config,) = expand(Selection("apao", "smoke", (str(data),), None, (), (0,), SMALL,
                                 rows=("TIGER + APAO-Pointwise",)))
    return workspace.prepare(config)


def run(data: Path, results: Path, *track: str) -> tuple[RunRecord, Path]:
    workspace = Workspace(results, track=track)
    item = prepared(data, workspace)
    return run_one(item, workspace, Quiet()), workspace.folder(item.run_id)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard finds."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


# The libraries, or what takes their place

@dataclass
class Heard:
    """What a library was told, and with what in the environment."""

    begun: list[dict[str, Any]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    values: list[tuple[str, float, int]] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)
    ends: list[Any] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def module(monkeypatch: pytest.MonkeyPatch, name: str, **names: Any) -> None:
    made = ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="made up")
    vars(made).update(names)
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """A store with the client's calls that are used; a run that was begun is found again."""
    heard, runs = Heard(), {}

    class Refused(Exception):
        pass

    class Client:
        experiments: dict[str, str] = {}

        def __init__(self, tracking_uri: str) -> None:
            heard.environment = dict(os.environ, uri=tracking_uri)

        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

        def create_experiment(self, name: str) -> str:
            if name == "made beside":  # by another process, between the question and this
                self.experiments[name] = "7"
                raise Refused
            return self.experiments.setdefault(name, "1")

        def search_runs(self, experiments: list[str], text: str) -> list[Any]:
            return [SimpleNamespace(info=SimpleNamespace(run_id=k)) for k, tag in runs.items() if f"'{tag}'" in text]

        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
            heard.begun.append({"experiment": experiment, "name": run_name, **tags})
            runs["theirs"] = tags["run_id"]
            return SimpleNamespace(info=SimpleNamespace(run_id="theirs"))

        def log_param(self, run_id: str, key: str, value: str) -> None:
            heard.params[key] = value

        def log_metric(self, run_id: str, key: str, value: float, step: int) -> None:
            if "@" in key or run_id != "theirs":
                raise Refused
            heard.values.append((key, value, step))

        def update_run(self, run_id: str, status: str) -> None:
            heard.ends.append(status)

        def set_terminated(self, run_id: str, status: str) -> None:
            heard.ends.append(status)

    module(monkeypatch, "mlflow", MlflowClient=Client)
    module(monkeypatch, "mlflow.exceptions", MlflowException=Refused)
    return heard


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Heard:
    heard = Heard()

    def init(**options: Any) -> Any:
        heard.begun.append(options)
        heard.environment = dict(os.environ)
        return SimpleNamespace(log=lambda values, step: heard.values.extend((k, v, step) for k, v in values.items()),
                               summary=heard.final, finish=lambda exit_code: heard.ends.append(exit_code))

    module(monkeypatch, "wandb", init=init, Settings=lambda **options: options)
    return heard


def test_all_hear_the_same_and_no_number_moves(data: Path, tmp_path: Path, mlflow: Heard, wandb: Heard) -> None:
    """The curve, state of an objective included, and the record's metrics; the run is the one without tracking."""
    plain, untold = run(data, tmp_path / "plain")
    assert sorted(path.name for path in untold.iterdir()) == ["best.safetensors"], "off unless asked for"
    told, folder = run(data, tmp_path / "told", "tensorboard", "mlflow", "wandb")
    for part in ("run_id", "config", "identity", "metrics", "training", "data", "tokenizer"):
        assert getattr(told, part) == getattr(plain, part)
    first, second = (Workspace(tmp_path / name).store.ranks_bytes(plain) for name in ("plain", "told"))
    assert first == second
    expected = {}
    for entry in told.training["curve"]:
        for name in ("loss", "valid_ndcg@10"):
            expected.setdefault(name, []).append((entry["epoch"], entry[name]))
        for name, levels in entry["state"].items():
            for level, value in enumerate(levels, 1):
                expected.setdefault(f"{name}/{level}", []).append((entry["epoch"], value))
    assert {"apao.weights/1", "apao.weights/2", "loss"} <= set(expected) and len(expected["loss"]) == 2
    expected |= {f"final/{name}": [(0, value)] for name, value in told.metrics.items()}
    found = scalars(folder)
    assert found.keys() == expected.keys()
    assert all([(s, pytest.approx(v)) for s, v in found[name]] == expected[name] for name in expected)
    flat = {(name.replace("@", "_at_"), value, step) for name, values in expected.items() for step, value in values}
    assert set(mlflow.values) == flat and mlflow.ends == ["FINISHED"]
    curves = {(name, value, step) for name, values in expected.items() for step, value in values if step}
    assert set(wandb.values) == curves and wandb.ends == [0]
    assert wandb.final == {f"final/{name}": value for name, value in told.metrics.items()}


def test_what_they_are_told_of_the_run(data: Path, tmp_path: Path, mlflow: Heard, wandb: Heard) -> None:
    """Its name, settings and place; nothing is sent anywhere, and nothing is told of its use."""
    record, folder = run(data, tmp_path, "mlflow", "wandb")
    name = "TIGER + APAO-Pointwise, toy, seed 0"
    assert mlflow.begun == [{"experiment": "1", "name": name, "run_id": record.run_id}]
    assert mlflow.params["backbone.width"] == "8" and mlflow.params["objectives.1.name"] == "apao"
    assert mlflow.environment["uri"] == (folder / "mlruns").as_uri()
    assert mlflow.environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    (begun,) = wandb.begun
    assert (begun["id"], begun["name"], begun["project"]) == (record.run_id, name, "genrec-bench")
    assert (begun["mode"], begun["resume"], begun["dir"]) == ("offline", None, str(folder))
    assert begun["config"] == record.config and wandb.environment["WANDB_ERROR_REPORTING"] == "false"


def test_the_users_environment_says_where_to(data: Path, tmp_path: Path, mlflow: Heard, wandb: Heard,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MLFLOW_TRACKING_URI": "http://here", "MLFLOW_EXPERIMENT_NAME": "made beside",
                        "WANDB_MODE": "online", "WANDB_PROJECT": "mine", "MLFLOW_DISABLE_TELEMETRY": "false"}.items():
        monkeypatch.setenv(name, value)
    run(data, tmp_path, "mlflow", "wandb")
    assert mlflow.environment["uri"] == "http://here" and mlflow.begun[0]["experiment"] == "7"
    assert mlflow.environment["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert [wandb.begun[0][k] for k in ("mode", "resume", "project")] == ["online", "allow", "mine"]


class Stops(Quiet):
    """Ctrl-C after the first epoch."""

    def step(self, done: int, total: int, note: str = "") -> None:
        raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_where_it_was(data: Path, tmp_path: Path, mlflow: Heard, wandb: Heard) -> None:
    """Both parts are closed, and no epoch is told twice."""
    workspace = Workspace(tmp_path, track=("tensorboard", "mlflow", "wandb"))
    item = prepared(data, workspace)
    with pytest.raises(KeyboardInterrupt):
        run_one(item, workspace, Stops())
    assert mlflow.ends == ["KILLED"] and wandb.ends == [1] and not wandb.final
    run_one(item, workspace, Quiet())
    assert mlflow.ends == ["KILLED", "RUNNING", "FINISHED"] and wandb.ends == [1, 0]
    assert len(mlflow.begun) == 1 and wandb.begun[0]["id"] == wandb.begun[1]["id"]
    for values in (mlflow.values, wandb.values):
        assert [step for name, _, step in values if name == "loss"] == [1, 2]
    assert [step for step, _ in scalars(workspace.folder(item.run_id))["loss"]] == [1, 2]


def test_a_baseline_tells_its_curve_in_the_end(tmp_path: Path, wandb: Heard) -> None:
    record = record_of("ml-100k", "sasrec", 0)
    with tracking.tracked(("wandb",), record.config, tmp_path) as told:
        assert not wandb.values
        told.done(record)
    assert wandb.begun[0]["name"] == "SASRec (RecBole, CE), ml-100k, seed 0" and wandb.ends == [0]
    assert [(v, s) for n, v, s in wandb.values if n == "loss"] == [(5 / e, e) for e in range(1, 13)]
    with tracking.tracked(("wandb",), record.config, tmp_path) as told:
        told.done(record_of("ml-100k", "tiger", 0))
    assert len(wandb.values) == 24, "a network has told its own"


def test_one_that_cannot_begin_leaves_the_others_closed(tmp_path: Path, mlflow: Heard, wandb: Heard,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **options: 1 / 0)
    with pytest.raises(ZeroDivisionError), tracking.tracked(
            ("mlflow", "wandb"), record_of("ml-100k", "sasrec", 0).config, tmp_path):
        raise AssertionError("the run was begun")
    assert mlflow.ends == ["KILLED"]


# From the command line

def command(data: Path, results: Path, *more: str) -> int:
    return main(["run", "--suite", "apao", "--profile", "smoke", "--datasets", str(data), "--baselines",
                 "popularity,item_knn", "--results", str(results), *more])


def test_runs_in_other_processes_are_tracked_too(data: Path, tmp_path: Path) -> None:
    assert command(data, tmp_path, "--track", "tensorboard", "--jobs", "2") == 0
    folders = sorted((tmp_path / "work").iterdir())
    assert len(folders) == 2
    for folder in folders:
        record = Workspace(tmp_path).store.read(folder.name)
        assert scalars(folder)["final/ndcg@10"] == [(0, pytest.approx(record.metrics["ndcg@10"]))]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without the two libraries, but with a folder that is called like one."""
    for name in ("mlflow", "wandb"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "here" / "wandb").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "here")])
    importlib.invalidate_caches()
    yield
    importlib.invalidate_caches()


def test_a_library_that_is_not_there(absent: None) -> None:
    for name in ("mlflow", "wandb"):
        with pytest.raises(UserError) as caught:
            tracking.check((name,))
        assert f'pip install "genrec-bench[{name}]"' in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "told"), [("tensorbord", "Did you mean 'tensorboard'?"), (",", "empty")])
def test_a_wrong_name_before_any_work(data: Path, tmp_path: Path, capsys: Any, text: str, told: str) -> None:
    assert command(data, tmp_path / "results", "--track", text) == 2
    out, err = capsys.readouterr()
    assert out == "" and told in err and err.count("\n") == 1 and not (tmp_path / "results").exists()


# The libraries themselves, where they are installed

def test_mlflow_reads_it_back(data: Path, tmp_path: Path) -> None:
    real = pytest.importorskip("mlflow")
    record, folder = run(data, tmp_path, "mlflow")
    client = real.MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("genrec-bench").experiment_id])
    assert found.info.status == "FINISHED" and found.data.tags["run_id"] == record.run_id
    assert found.data.metrics["final/ndcg_at_10"] == record.metrics["ndcg@10"]
    history = [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "loss")]
    assert history == [(e["epoch"], e["loss"]) for e in record.training["curve"]]


def test_wandb_writes_offline(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    record, folder = run(data, tmp_path, "wandb")
    (path,) = folder.glob(f"wandb/offline-run-*-{record.run_id}/*.wandb")
    entries, deadline = [], time.monotonic() + 60
    while not any(e.HasField("exit") for e in entries) and time.monotonic() < deadline:  # its own process writes it
        time.sleep(0.05)
        entries = [Record.FromString(entry) for entry in log_entries(path.read_bytes())]
    told = [{i.key or i.nested_key[0]: i.value_json for i in e.history.item} for e in entries if e.HasField("history")]
    assert [float(t["loss"]) for t in told] == [e["loss"] for e in record.training["curve"]]
    (begun,) = (e.run for e in entries if e.HasField("run"))
    assert (begun.run_id, begun.project) == (record.run_id, "genrec-bench")


def log_entries(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log behind a header of 7 bytes: blocks of 32 KiB, each part with checksum, length, kind.
    """
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4:at + 6], "little"), data[at + 6]
        whole += data[at + 7:at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""
