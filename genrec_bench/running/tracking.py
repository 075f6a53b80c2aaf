"""The progress of a run, told to TensorBoard, MLflow or Weights & Biases as it goes on, through their own libraries.

Off unless asked for. Nothing leaves the machine unless the user's own environment says where to: MLFLOW_TRACKING_URI,
or WANDB_MODE. No number and no name of a run depends on it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from genrec_bench.core.errors import UserError, unknown
from genrec_bench.results.records import RunRecord

PROJECT = "genrec-bench"
FINAL = "final/"  # before the names of a finished run's metrics, which curves may have too
CURVE = ("loss", "valid_ndcg@10")
LONGEST_PARAM = 500  # what older MLflow servers take


@dataclass(frozen=True)
class Run:
    """What a tracker is told of a run as it begins. name: for people; config: plain data; folder: the run's own."""

    run_id: str
    name: str
    config: Mapping[str, Any]
    folder: Path


class Tracker(Protocol):
    """One library that keeps track of runs."""

    def start(self, run: Run) -> None:
        """A run begins, or goes on after it was interrupted."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """A number of one epoch (`step`)."""

    def finish(self, metrics: Mapping[str, float] | None) -> None:
        """The run is over; None where it was broken off."""


class TensorBoard:
    """Event files in `tensorboard` of the run's folder."""

    def start(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.folder / "tensorboard"))
        settings = json.dumps(run.config, indent=1, sort_keys=True, ensure_ascii=False)
        self.writer.add_text("run", f"{run.name}\n\n```json\n{settings}\n```")

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.writer.add_scalar(name, value, step)

    def finish(self, metrics: Mapping[str, float] | None) -> None:
        for name, value in (metrics or {}).items():
            self.writer.add_scalar(f"{FINAL}{name}", value, 0)
        self.writer.close()


class MLflow:
    """A store in `mlruns` of the run's folder, or the one at MLFLOW_TRACKING_URI; `@` of a metric becomes `_at_`."""

    def start(self, run: Run) -> None:
        # Before the import, which would begin to report the library's use.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder needs no database and no server
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or (run.folder / "mlruns").resolve().as_uri()
        self.client = MlflowClient(tracking_uri=uri)
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT)
        begun = self.client.search_runs([experiment], f"tags.run_id = '{run.run_id}'")
        if begun:
            self.run_id = begun[0].info.run_id
            self.client.update_run(self.run_id, status="RUNNING")
            return
        self.run_id = self.client.create_run(experiment, run_name=run.name, tags={"run_id": run.run_id}).info.run_id
        for name, value in _flat(run.config):
            self.client.log_param(self.run_id, name, str(value)[:LONGEST_PARAM])

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name)
            except MlflowException:  # a run beside this one may have been quicker
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.client.log_metric(self.run_id, re.sub("@", "_at_", name), value, step=step)

    def finish(self, metrics: Mapping[str, float] | None) -> None:
        for name, value in (metrics or {}).items():
            self.add_scalar(f"{FINAL}{name}", value, 0)
        self.client.set_terminated(self.run_id, "KILLED" if metrics is None else "FINISHED")


class WeightsAndBiases:
    """An offline run in `wandb` of the run's folder, for `wandb sync`; WANDB_MODE=online sends it at once."""

    def start(self, run: Run) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports of crashes go out in offline mode too
        import wandb

        mode = os.environ.get("WANDB_MODE") or "offline"
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT, id=run.run_id, name=run.name, config=dict(run.config),
            dir=str(run.folder), mode=mode, resume=None if mode == "offline" else "allow", reinit="create_new",
            settings=wandb.Settings(console="off", silent=True))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.run.log({name: value}, step=step)

    def finish(self, metrics: Mapping[str, float] | None) -> None:
        self.run.summary.update({f"{FINAL}{name}": value for name, value in (metrics or {}).items()})
        self.run.finish(exit_code=int(metrics is None))


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}
LIBRARIES = {"tensorboard": "tensorboard", "mlflow": f"{PROJECT}[mlflow]", "wandb": f"{PROJECT}[wandb]"}


def check(names: Sequence[str], where: str = "--track") -> tuple[str, ...]:
    """The names. Raises: UserError for an unknown one, or where its library is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS, where)
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of that name is no library
            raise UserError(f"{where} {name} needs the library {name}, which is not installed. Install it with "
                            f'pip install "{LIBRARIES[name]}", or leave {name} out.')
    return tuple(names)


class Tracked:
    """All trackers of one run."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers
        self.metrics: Mapping[str, float] | None = None

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Tell all trackers a number of one epoch."""
        for tracker in self.trackers:
            tracker.add_scalar(name, value, step)

    def done(self, record: RunRecord) -> None:
        """The run has its record. A baseline tells nothing while it trains: its curve follows here."""
        self.metrics = record.metrics
        for entry in record.training.get("curve", ()) if record.config.get("baseline") else ():
            for name in CURVE:
                if name in entry:
                    self.add_scalar(name, entry[name], entry["epoch"])


@contextmanager
def tracked(names: Sequence[str], config: Mapping[str, Any], folder: Path) -> Iterator[Tracked]:
    """Begin with a run's trackers and end with them, however the run ends.

    names: of trackers, checked; config: the run's, as in its record; folder: its own, named by its run_id.
    """
    data = config["dataset"]
    name = f"{config['label']}, {data.get('label') or data['name']}, seed {config['seed']}"
    run = Run(folder.name, name, config, folder)
    trackers = Tracked([TRACKERS[name]() for name in names])
    with ExitStack() as ends:
        for tracker in trackers.trackers:
            tracker.start(run)
            ends.callback(lambda one=tracker: one.finish(trackers.metrics))
        yield trackers


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (`a.b`, value)."""
    if isinstance(data, (Mapping, list, tuple)) and data:
        for key, value in data.items() if isinstance(data, Mapping) else enumerate(data):
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, data
