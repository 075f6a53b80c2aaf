"""The suite from Python: run, tune and diagnose suites, compare objectives, score rankings; read and export records.

    from genrec_bench.api import compare
    verdict = compare(MyLoss, backbone="tiger")
    print(*verdict.sentences, sep="\\n")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import as_named
from genrec_bench.core.lazy import pandas
from genrec_bench.datasets import convert as converting
from genrec_bench.datasets.convert import Converted
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.overrides import check_fields
from genrec_bench.experiments.queue import profile_of
from genrec_bench.objectives.base import Objective
from genrec_bench.reporting.matching import of_suite
from genrec_bench.results import export as exporting
from genrec_bench.results import merge as merging
from genrec_bench.results.export import Exported
from genrec_bench.results.merge import Merged
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.running import comparing, diagnosing, suites, tuning
from genrec_bench.running import data_check as checking
from genrec_bench.running import rankings as rank_files
from genrec_bench.running.comparing import Question, RunsFailed, Verdict
from genrec_bench.running.diagnosing import BEAMS
from genrec_bench.running.folders import LOCAL, data_folder, open_workspace, reports_folder, stored_runs
from genrec_bench.running.plugin_file import is_file, load_objective, register_class
from genrec_bench.running.plugin_sources import read_sources
from genrec_bench.running.rankings import Evaluation
from genrec_bench.running.scheduler import Means
from genrec_bench.running.submission import take_records
from genrec_bench.running.tuning import Tuning

if TYPE_CHECKING:
    from pandas import DataFrame


def _naming_source(known: registry.Registry) -> Callable[[str], Callable[[type], type]]:
    """`register` for classes in a script: their runs are named by its file and the modules of yours that it imports."""

    def register(name: str) -> Callable[[type], type]:
        def add(cls: type) -> type:
            cls = known.register(name)(cls)
            try:
                path = Path(inspect.getfile(cls))
                cls.source_digest = read_sources(path, path.read_bytes()).digest
            except (OSError, TypeError):  # a notebook's cell: its `version` alone tells one state from another
                pass
            return cls

        return add

    return register


register_objective = _naming_source(registry.objectives)
register_dataset = _naming_source(registry.datasets)
register_split = _naming_source(registry.splits)
register_tokenizer = _naming_source(registry.tokenizers)
register_backbone = _naming_source(registry.backbones)
register_metric = _naming_source(registry.metrics)
register_baseline = _naming_source(registry.baselines)


def run_suite(name: str, *, profile: str | None = None, datasets: Sequence[str | Path] | None = None,
              seeds: Sequence[int] | None = None, objectives: Sequence[str] | None = None,
              baselines: Sequence[str] | None = None, rows: Sequence[str] | None = None, grid: str | None = None,
              results: Path | str = LOCAL, data_dir: Path | str | None = None, device: str = "cpu",
              jobs: int = 1, **settings: Mapping[str, Any]) -> list[RunRecord]:
    """Run what is missing of a suite, render its reports below `results`, and return its records.

    profile: None = quick, of a queue each block's own. datasets: names, or your own folders. objectives, baselines,
    rows (labels): what runs, as in the command: ["all"] is every row of a kind, [] none, and where rows of one kind are
    named those of the other run only if named too.
    data_dir: None = GENREC_BENCH_DATA.
    settings: changed ones by component, such as `training={"epochs": 2}`. With jobs > 1 the calling script needs the
    usual `if __name__ == "__main__":`. Raises: UserError for whatever is wrong with these; RunsFailed.
    """
    workspace = open_workspace(results, data_dir=data_dir, device=device)
    selection = Selection(name, profile_of(name, profile), _texts(datasets), _tuple(objectives), _tuple(baselines),
                          _tuple(seeds),
                          _settings(settings), grid, _tuple(rows))
    done = suites.run_suite(selection, workspace, Means(jobs), reports_folder(workspace.results))
    if done.ended.failed:
        raise RunsFailed(f"{len(done.ended.failed)} of {len(done.prepared)} runs failed; see failure.txt below "
                         f"{workspace.results / 'work'}")
    return [workspace.store.read(p.run_id) for p in done.prepared]


def tune(suite: str, trials: int, *, profile: str | None = None, datasets: Sequence[str | Path] | None = None,
         objectives: Sequence[str] | None = None, baselines: Sequence[str] | None = None,
         rows: Sequence[str] | None = None, grid: str | None = None, results: Path | str = LOCAL,
         data_dir: Path | str | None = None, device: str = "cpu", jobs: int = 1,
         **settings: Mapping[str, Any]) -> Tuning:
    """Try settings that a suite declares, so many trials of each row on each dataset, and choose by validation.

    The rest is as in `run_suite`. Raises: UserError for whatever is wrong with these; RunsFailed.
    """
    workspace = open_workspace(results, data_dir=data_dir, device=device)
    selection = Selection(suite, profile_of(suite, profile), _texts(datasets), _tuple(objectives), _tuple(baselines),
                          None,
                          _settings(settings), grid, _tuple(rows))
    done = tuning.tune(selection, trials, workspace, Means(jobs), reports_folder(workspace.results))
    if done.ended.failed:
        raise RunsFailed(f"{len(done.ended.failed)} trials failed; see failure.txt below {workspace.results / 'work'}")
    return done


def diagnose(suite: str, *, profile: str | None = None, datasets: Sequence[str | Path] | None = None,
             rows: Sequence[str] | None = None, seeds: Sequence[int] | None = None, beams: Sequence[int] = BEAMS,
             users: int = 0, results: Path | str = LOCAL, data_dir: Path | str | None = None, device: str = "cpu",
             jobs: int = 1, **settings: Mapping[str, Any]) -> Path:
    """Measure what beam search prunes in the finished runs of a suite whose weights are there. Returns the report.

    beams: widths. users: this many drawn test users, 0 = the standard sample. The rest is as in `run_suite`.
    Raises: UserError where nothing can be diagnosed; RunsFailed.
    """
    workspace = open_workspace(results, data_dir=data_dir, device=device)
    changed, question = _settings(settings), diagnosing.Question(tuple(sorted(beams)), users)
    selection = Selection(suite, profile_of(suite, profile), _texts(datasets), None, (), _tuple(seeds), changed, None,
                          _tuple(rows))
    failed, report = diagnosing.diagnose_suite(suite, diagnosing.diagnosable(selection, workspace, question), workspace,
                                               question, Means(jobs), reports_folder(workspace.results), changed)
    if failed:
        raise RunsFailed(f"{len(failed)} runs could not be diagnosed: {failed[0]}")
    return report


def evaluate(rankings: Sequence[Path | str], dataset: str | Path, *, label: str | None = None,
             compare: bool = False, results: Path | str = LOCAL, data_dir: Path | str | None = None,
             **settings: Mapping[str, Any]) -> Evaluation:
    """Score files of rankings by any model, each a seed of one method; with `compare` test them against stored runs.

    rankings: .csv (.gz too) or .parquet with the columns user_id, item_id, score. results: the folder of stored runs,
    and of the report; a run that is not there is taken from results/reference. settings: as in `check_data`.
    Raises: UserError naming file, line and user for whatever is wrong.
    """
    (chosen,) = checking.chosen_datasets(_texts([dataset]), _settings(settings))
    return rank_files.evaluate_files([Path(path) for path in _tuple(rankings)], chosen, data_folder(data_dir),
                                     reports_folder(Path(results), writes=compare), label=label,
                                     against=stored_runs(Path(results)) if compare else None)


def load_records(results: Path | str = LOCAL) -> list[RunRecord]:
    """All records below a folder, sorted by name; `RecordStore(folder).read_ranks(record)` has the users' ranks.

    Raises: UserError where there is no such folder.
    """
    if not Path(results).is_dir():
        raise UserError(f"no folder of records at {results}. Run a suite first, or name another folder.")
    return RecordStore(Path(results)).read_all()


def merge(sources: Sequence[Path | str], into: Path | str, *, maker: str | None = None,
          data_dir: Path | str | None = None) -> Merged:
    """Move all finished records below some folders into one; nothing is moved where anything is wrong with one.

    maker: who else made them: they are checked as by `merge --check`, against the data where they are at hand, and
    the records say it.
    Gives the numbers of records moved, of those that were there already, and of diagnoses taken along.
    Raises: UserError, such as for one name with different numbers.
    """
    folders = [Path(folder) for folder in _tuple(sources)]
    if maker is not None:
        return take_records(folders, Path(into), maker, data_folder(data_dir))
    return merging.merge(folders, Path(into))


def frame(results: Path | str = LOCAL, *, per: str = "metric", suite: str | None = None,
          datasets: Sequence[str] | None = None, trials: bool = False) -> DataFrame:
    """Finished runs as one pandas frame: a line a metric of a run, a run, or a test row of a run.

        scores = frame("results/local").query("metric == 'ndcg' and k == 10 and part == 'test' and level == 'item'")
        scores.groupby(["dataset", "label", "history"])["value"].agg(["mean", "std", "count"])

    per: "metric" (columns `results.frame.KEY` and METRIC), "run" (RUN: training, cost, machine, versions) or "user"
    (USER: ranks of each test row, and facts about it). docs/records.md has every column with its unit; what a record
    does not state is missing, and numbers are unrounded. suite, datasets: only runs of these. trials: also those of
    `tune`, which no report counts.
    Raises: UserError for an unknown name, and where no record is one of those.
    """
    records = exporting.chosen(Path(results), _tuple(datasets), of_suite(suite) if suite else None, trials=trials)
    return pandas.concat(exporting.tables(RecordStore(Path(results)), records, per), ignore_index=True)


def export(to: Path | str, *, results: Path | str = LOCAL, suite: str | None = None,
           datasets: Sequence[str] | None = None, per: str = "metric", force: bool = False) -> Exported:
    """Write what `frame` gives to a file, .csv, .parquet or .jsonl; test rows run by run, so that memory suffices.

    force: replace a file that is there. Raises: UserError before anything is written.
    """
    return exporting.export(Path(results), Path(to), per=per, datasets=_tuple(datasets),
                            wanted=of_suite(suite) if suite else None, force=force)


def check_data(datasets: Sequence[str | Path] | None = None, *, data_dir: Path | str | None = None,
               **settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read and check datasets and count their splits: {name: {"counts": {...}, "notes": [...]}}.

    datasets: names, or custom folders; None = all whose files are there. data_dir: None = GENREC_BENCH_DATA.
    settings: changed ones by dataset, such as `folder={"drop_repeats": True}`.
    Raises: UserError naming the file and the item, user or code.
    """
    folder = data_folder(data_dir)
    chosen = checking.chosen_datasets(_texts(datasets), _settings(settings))
    if datasets is None:
        chosen = checking.present_datasets(chosen, folder)
    return {label: checking.check_data(dataset, folder) for label, dataset in checking.labelled(chosen)}


def convert_data(source: Path | str, to: Path | str, *, format: str | None = None,
                 min_interactions: int | None = None, index: Path | str | None = None,
                 texts: Path | str | None = None) -> Converted:
    """Write data in another format as a new folder that `datasets` takes, with a table of ids as given and as written.

    source: a file of interactions, or a folder with one and maybe an index and texts. format: "lines", "pairs" or
    "json"; None = by content. min_interactions: users and items with fewer are left out until none is left; None = only
    users too short for leave-one-out. index, texts: JSON files by item id. Raises: UserError before anything is
    written.
    """
    return converting.convert(Path(source), Path(to), format=format, min_interactions=min_interactions,
                              index=None if index is None else Path(index),
                              texts=None if texts is None else Path(texts))


def compare(objective: type | str, *, backbone: str = "tiger", beside: Sequence[str] = (), weight: float = 1.0,
            datasets: Sequence[str | Path] | None = None, profile: str = "quick", seeds: Sequence[int] | None = None,
            results: Path | str = LOCAL, data_dir: Path | str | None = None, device: str = "cpu", jobs: int = 1,
            check: bool = True, suite: str | Path = "all", trials: int = 0, **settings: Mapping[str, Any]) -> Verdict:
    """Check an objective, train it over the seeds of the stored baselines, and test it against each of them.

    results: where its runs go and stored ones are; one that is not there is taken from results/reference.
    objective: `FILE.py:CLASS`, a registered name, or a class in a file; its runs are named by the bytes of that file
    and of the modules of yours that it imports, as in the command. beside: objectives that are trained with it.
    data_dir: None = GENREC_BENCH_DATA. jobs: runs at a time; more than 1 needs `FILE.py:CLASS` or a registered name,
    which other processes can load. suite: whose rows it is tested against, a name or a file of yours. trials: settings
    that are tried before, those that validation chooses are taken. settings: changed ones by component, such as
    `my_loss={"tau": 2.0}`.
    Raises: UserError for whatever is wrong with these, or a broken contract; RunsFailed.
    """
    name = _registered(objective)
    if jobs > 1 and not isinstance(objective, str):
        raise UserError(f"jobs={jobs} needs the objective as \"FILE.py:CLASS\", so that each process can load it.")
    workspace = open_workspace(results, data_dir=data_dir, device=device)
    if isinstance(objective, str) and is_file(objective):
        workspace = replace(workspace, plugins=(objective,))
    question = Question(name, backbone, _tuple(beside), weight, _texts(datasets), profile, _tuple(seeds),
                        _settings(settings), str(suite), trials)
    return comparing.compare(question, workspace, Means(jobs), workspace.results / "reports", check=check)


def _registered(objective: type | str) -> str:
    """The registered name. Raises: UserError for what is no objective, or a class that no file holds."""
    if isinstance(objective, str) and is_file(objective):
        return load_objective(objective)
    if isinstance(objective, str):
        name, objective = objective, registry.objectives.get(objective)
        if objective.__module__.startswith("genrec_bench.objectives."):
            return name
    if not isinstance(objective, type):
        raise UserError(f"objective must be a class, a registered name or \"FILE.py:CLASS\", got {objective!r}.")
    if objective.__module__.startswith("genrec_bench.objectives.") and "name" in vars(objective):
        return objective.name  # ours: its runs are named by its version
    try:
        inspect.getsource(objective)  # of a notebook's cell there is no file, or one that does not hold the class
        path = Path(inspect.getfile(objective))
        data = path.read_bytes()
    except (OSError, TypeError):
        raise UserError(f"class {objective.__name__} is in no file, so its runs could not be named by their "
                        "source. Put it into a file and import it, or give \"FILE.py:CLASS\".") from None
    if (objective.__module__ == "__main__" or "." in objective.__qualname__ or not issubclass(objective, Objective)
            or objective.__module__.startswith("genrec_bench.")):
        return register_class(objective, read_sources(path, data).digest, str(path))
    return load_objective(f"{path}:{objective.__name__}")  # what runs is what the file says now


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Checked like `--set`."""
    for part, values in settings.items():
        if not isinstance(values, Mapping):
            raise UserError(f"{part} must be a dictionary of settings such as training={{\"epochs\": 2}}, got "
                            f"{values!r}.")
        check_fields(part, values, part)
    return {part: dict(values) for part, values in settings.items()}


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    """Raises: UserError for a single text, which would be taken letter by letter, or path."""
    if isinstance(values, str | Path):
        raise UserError(f"a list of names is needed, such as [{str(values)!r}]; got {values!r}.")
    return None if values is None else tuple(values)


def _texts(datasets: Sequence[str | Path] | None) -> tuple[str, ...] | None:
    """As `--datasets` takes them; a path is a folder, also one without a separator."""
    given = _tuple(datasets)
    return given and tuple(str(as_named(d)) if isinstance(d, Path) else d for d in given)
