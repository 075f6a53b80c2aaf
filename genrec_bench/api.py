"""The suite from Python: run a suite, read records, compare an objective of one's own, register plug-ins.

    from genrec_bench.api import compare
    verdict = compare(MyLoss, backbone="tiger")
    print(*verdict.sentences, sep="\\n")
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genrec_bench import plan, registry
from genrec_bench.commands import common
from genrec_bench.commands import compare as comparing
from genrec_bench.commands.compare import Question, Verdict
from genrec_bench.commands.run import prepare_configs, run_all
from genrec_bench.errors import UserError
from genrec_bench.plan import Selection
from genrec_bench.records import RecordStore, RunRecord
from genrec_bench.reporting.markdown import render_suite
from genrec_bench.runner import Workspace

register_objective = registry.objectives.register
register_dataset = registry.datasets.register
register_tokenizer = registry.tokenizers.register
register_backbone = registry.backbones.register
register_metric = registry.metrics.register


def run_suite(name: str, *, profile: str = "quick", datasets: Sequence[str] | None = None,
              seeds: Sequence[int] | None = None, grid: str | None = None, results: Path | str = common.LOCAL,
              data_dir: Path | str | None = None, device: str = "cpu", jobs: int = 1,
              **settings: Mapping[str, Any]) -> list[RunRecord]:
    """Run what is missing of a suite, render its reports below `results`, and return its records.

    settings: changed ones by component, such as `training={"epochs": 2}`. With jobs > 1 the calling script needs the
    usual `if __name__ == "__main__":`. Raises: UserError for a wrong name; RuntimeError where a run failed.
    """
    workspace = Workspace(Path(results), Path(data_dir) if data_dir else None, device)
    selection = Selection(name, profile, _tuple(datasets), seeds=_tuple(seeds), overrides=_settings(settings),
                          grid=grid)
    configs = plan.expand(selection)
    plan.check_overrides(selection.overrides, configs)
    prepared = prepare_configs(configs, workspace, keep=True)
    failed = run_all(prepared, workspace, jobs)
    for suite in plan.parts_of(name):
        render_suite(suite, workspace.store.read_all(), workspace.results / "reports")
    if failed:
        raise RuntimeError(f"{failed} of {len(prepared)} runs failed; see failure.txt below {workspace.results}/work")
    return [workspace.store.read(p.run_id) for p in prepared]


def load_records(results: Path | str = common.REFERENCE) -> list[RunRecord]:
    """All records below a folder, sorted by name; see `RecordStore.read_ranks` for the users' ranks."""
    return RecordStore(Path(results)).read_all()


def compare(objective: type | str, *, backbone: str = "tiger", beside: Sequence[str] = (), weight: float = 1.0,
            datasets: Sequence[str] | None = None, profile: str = "quick", seeds: Sequence[int] | None = None,
            results: Path | str = common.LOCAL, reference: Path | str = common.REFERENCE,
            data_dir: Path | str | None = None, device: str = "cpu", check: bool = True,
            **settings: Mapping[str, Any]) -> Verdict:
    """Check an objective, train it over the seeds of the stored baselines, and test it against each of them.

    objective: a class, a registered name, or `FILE.py:CLASS`. beside: objectives that are trained with it. settings:
    changed ones by component, such as `my_loss={"tau": 2.0}`. Runs one after the other in this process.
    Raises: UserError for a wrong name or a broken contract; RuntimeError where a run failed.
    """
    name = _registered(objective)
    workspace = Workspace(Path(results), Path(data_dir) if data_dir else None, device)
    question = Question(name, backbone, tuple(beside), weight, _tuple(datasets), profile, _tuple(seeds),
                        _settings(settings), Path(reference))
    prepared = comparing.prepare(question, workspace)
    if check and not comparing.checked(name):
        raise UserError(f"objective {name} breaks its contract; nothing was trained. check=False trains it as it is.")
    verdict = comparing.compare(question, prepared, workspace, 1, workspace.results / "reports")
    if verdict is None:
        raise RuntimeError(f"a run failed; see failure.txt below {workspace.results / 'work'}")
    return verdict


def _registered(objective: type | str) -> str:
    from genrec_bench.plugin_file import is_file, load_objective, register_class

    if isinstance(objective, str):
        name = load_objective(objective) if is_file(objective) else objective
        registry.objectives.get(name)
        return name
    if objective in (registry.objectives.get(n) for n in registry.objectives.names()):
        return objective.name
    try:
        source = inspect.getsource(objective)
    except (OSError, TypeError):
        raise UserError(f"the source of {objective.__name__} cannot be read, so its runs could not be named. Put it "
                        "into a file.") from None
    return register_class(objective, hashlib.sha256(source.encode()).hexdigest(), objective.__module__)


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Checked like `--set`."""
    for part, values in settings.items():
        plan.check_fields(part, values, "settings")
    return {part: dict(values) for part, values in settings.items()}


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
