"""One objective in, a verdict out: it is trained like the stored baselines and tested against them."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.datasets.base import dataset_spec
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import WORDS, RunConfig
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.overrides import Overrides, check_overrides, merged
from genrec_bench.experiments.suite_files import load_profile, with_preset
from genrec_bench.experiments.trials import Search, trials_of, words
from genrec_bench.reporting.comparison import render_comparison
from genrec_bench.reporting.matching import Rows
from genrec_bench.reporting.rows import load_suite
from genrec_bench.reporting.trials import Searched
from genrec_bench.results.records import RecordStores, RunRecord, read_record
from genrec_bench.running.folders import as_typed, stored_runs
from genrec_bench.running.runner import check_fit
from genrec_bench.running.scheduler import Means, run_all
from genrec_bench.running.suites import prepare_configs
from genrec_bench.running.tuning import choose
from genrec_bench.running.workspace import Workspace

TITLES = {"tiger": "TIGER", "llama": "Llama"}


@dataclass(frozen=True)
class Question:
    """What is compared: an objective (a registered name), alone or added to others, on which backbone and data.

    beside: registered objectives that are trained with it; weight: of the objective. seeds: None = those of the stored
    runs of the same backbone and profile, else the profile's. datasets: None = those of the profile that stored runs
    of the backbone have, else all of it. suite: whose rows it is tested against, a name or a file of the user's.
    trials: how many settings are tried on each data set before, 0 = none.
    """

    objective: str
    backbone: str = "tiger"
    beside: tuple[str, ...] = ()
    weight: float = 1.0
    datasets: tuple[str, ...] | None = None
    profile: str = "quick"
    seeds: tuple[int, ...] | None = None
    overrides: Overrides = field(default_factory=dict)
    suite: str = "all"
    trials: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """The datasets as `--datasets` takes them."""
        return self.datasets or tuple(load_profile(self.profile)["datasets"])

    @property
    def shared(self) -> Overrides:
        """What `--set` says of anything but objectives: what the suites' rows have too."""
        return {k: v for k, v in self.overrides.items() if k not in registry.objectives.names()}

    @property
    def row(self) -> dict[str, Any]:
        """The row that a suite would have for it."""
        parts = [*self.beside, self.objective if self.weight == 1.0 else f"{self.weight:g} {self.objective}"]
        return {"label": f"{TITLES.get(self.backbone, self.backbone)} + {' + '.join(parts)}",
                "backbone": {"name": self.backbone},
                "objective": [*({"name": name} for name in self.beside),
                              {"name": self.objective, "weight": self.weight}]}


@dataclass(frozen=True)
class Verdict:
    """A finished comparison: a sentence a stored baseline, where the report is, and the new runs' records.

    missing: (label, command) of baselines that have no stored record. summary: all verdicts on each dataset in a
    sentence or two.
    """

    sentences: tuple[str, ...]
    report: Path
    records: tuple[RunRecord, ...]
    missing: tuple[tuple[str, str], ...] = ()
    summary: tuple[str, ...] = ()


class BrokenContract(UserError):
    """An objective that fails a contract check."""


class RunsFailed(RuntimeError):
    """Runs of the new objective that did not finish."""


class RunsLeft(RuntimeError):
    """Runs of the new objective that there was no time for."""


def compare(question: Question, workspace: Workspace, means: Means, reports: Path, *, check: bool = True) -> Verdict:
    """Check the objective, train what is missing and test it against every stored baseline.

    Nothing is written before everything about the question is known to be right. check: refuse an objective that
    breaks its contract.
    Raises: UserError for whatever is wrong with the question, BrokenContract, RunsFailed, RunsLeft.
    """
    load_suite(question.suite)  # whatever is wrong with it is said now
    stored = stored_runs(workspace.results)
    question = replace(question, datasets=_datasets(question, stored),
                       seeds=question.seeds or _stored_seeds(question, stored))
    state = _checked(question, check)
    configs = _configs(question, stored)
    if not stored.read_results():
        raise UserError(f"no stored baselines in {stored}. Make them with `python benchmark.py --suite all --profile "
                        f"{question.profile} --results {as_typed(workspace.results)}`, or name another folder with "
                        "--results.")
    prepared = prepare_configs(configs, workspace, keep=True)
    missing = _missing(question, {p.run_id for p in prepared}, {p.config.seed for p in prepared}, workspace, stored)
    print(state, file=sys.stderr)
    searched: tuple[Searched, ...] = ()
    if question.trials:
        searched, configs = _tuned(question, stored, workspace, means)
        prepared = prepare_configs(configs, workspace, keep=True)
    ended = run_all([p for p in prepared if stored.find(p.run_id) is None], workspace, means)
    if ended.failed:
        raise RunsFailed(f"{len(ended.failed)} of {len(prepared)} runs failed; see failure.txt below "
                         f"{workspace.results / 'work'}")
    if ended.left:
        raise RunsLeft(f"{ended.left} of {len(prepared)} runs are left")
    new = [read_record(stored.find(p.run_id)) for p in prepared]
    rows = Rows(question.suite, question.shared)
    others = [record for record in stored.read_results()
              if not _is_own(record, question.objective) or rows.of(record, record.profile) is not None]
    told = render_comparison(new, others, stored.read_ranks, reports / "compare" / question.objective, missing=missing,
                             notes=[_tried(one) for one in searched], rows=rows)
    return Verdict(told.sentences, told.path, tuple(new), tuple(missing), told.summary)


def _datasets(question: Question, stored: RecordStores) -> tuple[str, ...]:
    """The datasets asked for; else those of the profile that stored runs of the backbone have, where there are any."""
    if question.datasets:
        return question.datasets
    known = {r.config["dataset"]["name"] for r in stored.read_results() if r.profile == question.profile
             and (r.config.get("backbone") or {}).get("name") == question.backbone}
    return tuple(name for name in question.texts if name in known) or question.texts


def _tuned(question: Question, stored: RecordStores, workspace: Workspace,
           means: Means) -> tuple[tuple[Searched, ...], list[RunConfig]]:
    """What validation chose on each data set, and the runs with it. Raises: UserError, RunsFailed, RunsLeft."""
    found = []
    for text in question.texts:
        only = Selection("all", question.profile, (text,))

        def make(changes: Overrides, only: Selection = only) -> RunConfig:
            changed = replace(only, overrides=merged(question.overrides, changes))
            return grid.expand_rows([question.row], changed, trials=True)[-1]

        every = trials_of(grid.parts_of(question.suite), make, question.overrides)
        found.append(Search(question.row["label"], title_of(text), tuple(every)))
    ended, searched = choose(found, question.trials, workspace, means)
    if ended.failed:
        raise RunsFailed(f"{len(ended.failed)} trials failed; see failure.txt below {workspace.results / 'work'}")
    if ended.left:
        raise RunsLeft("trials are left")
    for one in searched:
        print(_tried(one), file=sys.stderr)
    chosen = {one.dataset: one.best.changes for one in searched}
    configs = [config for text in question.texts for config in _configs(replace(
        question, datasets=(text,), overrides=merged(question.overrides, chosen.get(title_of(text), {}))), stored)]
    return searched, configs


def _tried(one: Searched) -> str:
    """What was chosen of how many, in a sentence."""
    made = f", made with {one.made}," if one.made else ""
    return (f"{one.dataset}: of {len(one.trials)} trials{made} validation chose number {one.best.number}: "
            f"{words(one.best.changes)} (NDCG@10 {one.best.value:.4f}; as it stands {one.trials[0].value:.4f}).")


def _is_own(record: RunRecord, objective: str) -> bool:
    """Whether a record is of this objective from a file of the user's, as it is or was: no opponent of itself."""
    return any(own["name"] == objective and "source" in own for own in record.identity.get("objectives", ()))


def _checked(question: Question, check: bool) -> str:
    """A line about the contract checks; tells those that fail. Raises: BrokenContract, where asked to check."""
    from genrec_bench.training.objective_checks import CHECKS, check_objective

    broken: dict[str, list[str]] = {}
    for finding in check_objective(_objective(question)):
        if not finding.passed:
            broken.setdefault(finding.detail, []).append(finding.name)
    for detail, names in broken.items():  # one mistake may break many checks
        more = f" (and {len(names) - 1} more checks)" if len(names) > 1 else ""
        print(f"FAILED  {names[0]}{more}: {detail}", file=sys.stderr)
    if broken and check:
        raise BrokenContract(f"objective {question.objective} breaks its contract (above), so nothing was trained. "
                             "Fix it, or train it as it is with --no-check (in Python check=False).")
    return f"{question.objective}: {len(CHECKS)} contract checks, {sum(map(len, broken.values())) or 'none'} failed."


def _objective(question: Question) -> Any:
    """The objective with the settings asked for. Raises: UserError."""
    name = question.objective
    registry.objectives.get(name, "--objective")
    spec = {"name": name, **with_preset(name, question.overrides.get(name, {}), "--set")}
    try:
        return registry.objectives.build({k: v for k, v in spec.items() if k != "weight"})
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a class of the user's raises
        raise UserError(f"objective {name} cannot be made with its settings: {type(error).__name__}: "
                        f"{' '.join(str(error).split())}") from None


def _configs(question: Question, stored: RecordStores) -> list[RunConfig]:
    """The new objective's runs. Raises: UserError."""
    registry.backbones.get(question.backbone, "--backbone")
    for name in question.beside:
        registry.objectives.get(name, "--with")
    seeds = question.seeds or _stored_seeds(question, stored)
    configs = grid.expand_rows([question.row], Selection("all", question.profile, question.texts, seeds=seeds,
                                                         overrides=question.overrides))
    check_overrides(question.overrides, configs)
    return configs


def _stored_seeds(question: Question, stored: RecordStores) -> tuple[int, ...] | None:
    """Seeds of the stored runs of the suite's rows of this backbone in this profile, or None where there is none."""
    datasets, rows = {title_of(text) for text in question.texts}, Rows(question.suite, question.shared)
    found = {r.seed for r in stored.read_results() if r.profile == question.profile and r.dataset in datasets
             and (r.config.get("backbone") or {}).get("name") == question.backbone
             and rows.of(r, question.profile) is not None}
    return tuple(sorted(found)) or None


def title_of(text: str) -> str:
    """What a dataset that the user names is called in tables. Raises: UserError."""
    return registry.datasets.build(dataset_spec(text)).title


def _missing(question: Question, ours: set[str], seeds: set[int], workspace: Workspace,
             stored: RecordStores) -> list[tuple[str, str]]:
    """(label, command) of the suites' baselines, and of this backbone's rows, that have no stored record.

    They are asked for with the settings that the new runs have too.
    """
    missing: dict[str, str] = {}
    for suite in grid.parts_of(question.suite):
        rows = [row for row in grid.load_suite(suite)["row"] if row.get("grid", "core") != "full"
                and ("baseline" in row or row["backbone"]["name"] == question.backbone)]
        for text, row in itertools.product(question.texts, rows):
            selection = Selection(suite, question.profile, (text,), seeds=tuple(sorted(seeds)),
                                  overrides=question.shared,
                                  objectives=() if "baseline" in row else None,
                                  baselines=(row["baseline"],) if "baseline" in row else (),
                                  rows=None if "baseline" in row else (row["label"],))
            absent = _absent(selection, ours, workspace, stored)
            if absent:
                label = f"{absent[0].label} on {title_of(text)}"
                missing.setdefault(label, _command(selection, absent, workspace))
    return list(missing.items())


def _absent(selection: Selection, ours: set[str], workspace: Workspace, stored: RecordStores) -> list[RunConfig]:
    """A row's runs, first stages apart, that are neither stored nor the new ones; none where it cannot run here."""
    absent = []
    try:
        for config in grid.expand(selection):
            prepared = workspace.prepare(config)
            check_fit(prepared)
            known = prepared.run_id in ours or stored.find(prepared.run_id) is not None
            if not known and config.label in (selection.rows or (config.label,)):
                absent.append(config)
    except UserError:  # it does not fit the data or the settings: no command would make it
        return []
    return absent


def _command(selection: Selection, absent: list[RunConfig], workspace: Workspace) -> str:
    """What makes some runs of a row where `compare` looks for them."""
    which = ["--row", *selection.rows] if selection.rows else ["--baselines", *selection.baselines]
    parts = [part for c in absent for part in (c.dataset, c.tokenizer, c.backbone, c.baseline) if part is not None]
    used = {*WORDS, *(part.name for part in parts)}
    changes = [word for part, values in selection.overrides.items() if part in used for key, value in values.items()
               for word in ("--set", f"{part}.{key}={value if isinstance(value, str) else json.dumps(value)}")]
    changes += [word for plugin in workspace.plugins if plugin.endswith(".py") for word in ("--plugin", plugin)]
    return shlex.join(["python", "benchmark.py", "--suite", selection.suite, "--profile", selection.profile,
                       "--datasets", *selection.datasets, *which, "--seeds",
                       ",".join(str(c.seed) for c in absent), *changes, "--results", as_typed(workspace.results)])
