"""`diagnose`: what beam search throws away in the finished runs of a suite, then its report."""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import shlex
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.analysis.pruning import pruning_rate
from genrec_bench.commands import common
from genrec_bench.commands.run import prepare_all
from genrec_bench.contracts import PAD
from genrec_bench.core.ending import begin_child, exit_code
from genrec_bench.core.errors import UserError
from genrec_bench.core.progress import Bars
from genrec_bench.experiments.grid import parse_overrides
from genrec_bench.reporting.markdown import render_suite
from genrec_bench.results import diagnoses
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.running import runner
from genrec_bench.running.runner import Prepared, Workspace

BEAMS = (5, 10, 20, 50, 100)
WIDEST = 1_000
NORMALISERS = ("flat", "trie")
TOP, CAP = 20, 100
MOST_NAMED = 3  # methods that are left out, for each reason
MOST_DIFFERENT = 1e-3  # share of users whose place may differ from the record's: scores that are all but equal


@dataclass(frozen=True)
class Question:
    """What is asked of every run. users: 0 = the standard sample."""

    beams: tuple[int, ...] = BEAMS
    users: int = 0

    def sample(self, item: Prepared) -> diagnoses.Sample:
        """The test rows of a run that are looked at."""
        size = {"limit": self.users, "drawn": self.users} if self.users else {}
        return diagnoses.sample_rows(item.split.fingerprint, len(item.split.test), **size)

    def settings(self, item: Prepared) -> dict[str, Any]:
        """What a diagnosis that answers it says of itself."""
        return {"schema": diagnoses.SCHEMA, "beams": list(self.beams), "normalisers": list(NORMALISERS), "top": TOP,
                "cap": CAP, "sample": self.sample(item).about}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `diagnose`."""
    common.add_selection(parser)
    parser.set_defaults(baselines=["none"])
    default = ",".join(map(str, BEAMS))
    parser.add_argument("--beams", default=default, metavar="A,B", help=f"beam widths (default: {default})")
    parser.add_argument("--users", type=int, default=None, metavar="N",
                        help="draw N test users, for a quick look; never takes the place of a diagnosis of more "
                             f"(default: all up to {diagnoses.LIMIT}, of more {diagnoses.DRAWN})")
    common.add_results(parser)
    common.add_device(parser)
    common.add_jobs(parser)


def run(args: argparse.Namespace) -> int:
    """Diagnose every finished run whose weights are there, render. Exit code 1 where one could not be diagnosed.

    Raises: UserError for a wrong option, and where no run of the selection can be diagnosed.
    """
    question = Question(_beams(args.beams), _users(args.users))
    if args.baselines != ["none"]:
        raise UserError("diagnose looks at generative runs alone. Leave --baselines out.")
    workspace, jobs = common.workspace(args), common.jobs(args)
    prepared = prepare_all(args, workspace, keep=False)
    answered = {p.run_id for p in prepared if _answered(p, workspace, question)}
    todo = [p for p in prepared if p.run_id not in answered and runner.has_weights(p, workspace)]
    left = [p for p in prepared if p.run_id not in answered | {t.run_id for t in todo}]
    for line in _left_out(left, workspace, args):
        print(line, file=sys.stderr)
    if not answered and not todo:
        raise UserError(f"nothing to diagnose: no run of this selection is finished below {workspace.results} and has "
                        "its weights there.")
    for folder in sorted({workspace.store.path(workspace.store.read(p.run_id)).parent for p in todo}):
        if not os.access(folder, os.W_OK):
            raise UserError(f"nothing can be written in {folder}, where diagnoses belong. Make it writable, or copy "
                            "the results and give the copy with --results.")
    errors = diagnose_all(todo, workspace, question, jobs, len(answered))
    if errors and len(errors) == len(todo) and not answered:
        raise UserError(errors[0])
    path = render_suite(args.suite, workspace.store.read_all(), common.reports_dir(args),
                        results=workspace.results, overrides=parse_overrides(args.overrides))
    print(f"report: {path}")
    return 1 if errors else 0


def _beams(text: str) -> tuple[int, ...]:
    """The widths after --beams, ascending. Raises: UserError."""
    words = [word.strip() for word in text.split(",")]
    wrong = [w for w in words if not (w.isascii() and w.isdecimal() and 1 <= int(w) <= WIDEST)]
    if wrong:
        raise UserError(f"--beams takes whole numbers from 1 to {WIDEST} such as 10,20,50; got {wrong[0]!r}.")
    widths = sorted(int(w) for w in words)
    again = next((a for a, b in zip(widths, widths[1:], strict=False) if a == b), None)
    if again is not None:
        raise UserError(f"--beams names {again} twice.")
    return tuple(widths)


def _users(number: int | None) -> int:
    if number is not None and number < 1:
        raise UserError(f"--users must be at least 1, got {number}.")
    return number or 0


def _answered(item: Prepared, workspace: Workspace, question: Question) -> bool:
    """Whether the run's diagnosis says what is asked, or is of more users, and so stays."""
    if not workspace.store.find(item.run_id):
        return False
    known = diagnoses.find(workspace.store, workspace.store.read(item.run_id))
    if known is None:
        return False
    wanted = question.settings(item)
    alike = {**known.settings, "beams": wanted["beams"]} == wanted and set(wanted["beams"]) <= set(known.beams)
    return alike or known.num_users > wanted["sample"]["users"]


def _left_out(items: list[Prepared], workspace: Workspace, args: argparse.Namespace) -> Iterator[str]:
    """What cannot be diagnosed, a line a method, and the command that makes it."""
    for finished, what, results in ((False, "not finished", args.results),
                                    (True, "finished, but its weights are not here", _elsewhere(args.results))):
        some = [p for p in items if (workspace.store.find(p.run_id) is not None) == finished]
        seeds: dict[str, list[str]] = {}
        for item in some:
            seeds.setdefault(f"{item.config.label}, {item.dataset}", []).append(str(item.config.seed))
        lines = [f"left out: {name}, seed {', '.join(numbers)}: {what}" for name, numbers in seeds.items()]
        yield from lines[:MOST_NAMED]
        if len(lines) > MOST_NAMED:
            yield f"left out: {len(lines) - MOST_NAMED} more methods: {what}"
        if some:
            yield f"  To make {'it' if len(some) == 1 else f'these {len(some)} runs'}:\n  {_command(args, results)}"


def _elsewhere(results: Path) -> Path:
    """A folder where runs that are finished in this one are run again."""
    return common.LOCAL if results.resolve() != common.LOCAL.resolve() else results.with_name(f"{results.name}-again")


def _command(args: argparse.Namespace, results: Path) -> str:
    """The `run` of the same selection."""
    options: list[tuple[str, Any]] = [
        ("--suite", args.suite), ("--profile", args.profile), ("--datasets", args.datasets),
        ("--objectives", args.objectives), *(("--row", row) for row in args.rows or ()), ("--baselines", "none"),
        ("--seeds", args.seeds), ("--grid", args.grid), *(("--set", pair) for pair in args.overrides),
        *(("--plugin", path) for path in args.plugins), ("--data-dir", args.data_dir),
        ("--device", None if args.device == "cpu" else args.device),
        ("--threads", None if args.threads == 1 else args.threads), ("--results", results)]
    words = [word for name, value in options if value is not None
             for word in (name, ",".join(value) if isinstance(value, list) else str(value))]
    return shlex.join(["python", "benchmark.py", "run", *words])


def diagnose_all(todo: list[Prepared], workspace: Workspace, question: Question, jobs: int,
                 answered: int = 0) -> list[str]:
    """Diagnose some runs, `jobs` at a time; one that fails does not stop the others. Returns the errors."""
    bars = Bars(len(todo) + answered, answered)
    if answered:
        bars.say(f"{answered} of {len(todo) + answered} runs are diagnosed already, with these beams or for more "
                 "users; that stays.")
    errors, done = [], 0
    try:
        with closing(_each(todo, workspace, question, jobs)) as results:
            for item, result in results:
                if isinstance(result, Diagnosis):
                    done += 1
                    bars.finished(f"{item.run_id}  {_name(item)}: {_summary(result)}")
                else:
                    errors.append(result)
                    bars.say(f"FAILED  {_name(item)}: {result}")
    except KeyboardInterrupt as stopped:
        bars.close()
        print(f"\ninterrupted: {answered + done} of {answered + len(todo)} runs are diagnosed, which stays. To go "
              f"on:\n  {workspace.command}", file=sys.stderr)
        raise SystemExit(exit_code(stopped)) from None
    finally:
        bars.close()
    return errors


def _each(todo: list[Prepared], workspace: Workspace, question: Question,
          jobs: int) -> Generator[tuple[Prepared, Diagnosis | str], None, None]:
    """Every run with its diagnosis or its error, as they come."""
    if jobs == 1 or len(todo) < 2:
        yield from ((item, _tried(item, workspace, question)) for item in todo)
        return
    bare = dataclasses.replace(workspace, _interactions={}, _splits={}, _ids={})
    with ProcessPoolExecutor(min(jobs, len(todo)), multiprocessing.get_context("spawn"), _begin,
                             (os.getpid(), workspace.plugins)) as pool:
        try:
            futures = {pool.submit(_tried, item, bare, question): item for item in todo}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise UserError("a process was ended from outside; where that was for want of memory, lower --jobs. What "
                            "is diagnosed stays, and the same command goes on.") from None
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _begin(parent: int, plugins: tuple[str, ...]) -> None:
    begin_child(parent)
    if plugins:
        from genrec_bench.running.plugin_file import load_plugins

        load_plugins(plugins)


def _tried(item: Prepared, workspace: Workspace, question: Question) -> Diagnosis | str:
    try:
        return diagnose_run(item, workspace, question)
    except UserError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  one broken run must not cost the others
        return (str(error).strip().splitlines() or [type(error).__name__])[0]


def diagnose_run(item: Prepared, workspace: Workspace, question: Question) -> Diagnosis:
    """Diagnose a finished run from its best weights and write that beside its record.

    Raises: UserError where the weights do not rank as the record says.
    """
    import torch

    from genrec_bench.batches import TokenisedInstances
    from genrec_bench.running.generative import deterministic, load_checkpoint
    from genrec_bench.search.diagnose import diagnose_rows
    from genrec_bench.trie import Trie

    record, decoding, sample = workspace.store.read(item.run_id), item.config.decoding, question.sample(item)
    searched = sorted({*question.beams, decoding.num_beams})  # the run's own beam shows whose weights these are
    model, ids, _ = load_checkpoint(workspace.folder(item.run_id) / runner.BEST, workspace.device)
    if ids.fingerprint != item.semantic_ids.fingerprint:
        raise UserError(_strangers(item, workspace, "they were trained on other semantic IDs"))
    trie = Trie.from_codes(ids.tokens)
    data = TokenisedInstances(item.split.test, ids, model.history_suffix, workspace.device)
    with deterministic(workspace.threads):
        arrays = diagnose_rows(model, data, sample.rows, trie, beams=searched, normalisers=NORMALISERS, top=TOP,
                               cap=CAP, temperature=decoding.temperature)
    inner = np.unique(trie.parent[trie.token != PAD])
    about = {**question.settings(item), "run_id": item.run_id, "levels": trie.depth,
             "catalogue": {"items": len(ids.tokens), "ids": trie.num_ids, "prefixes": trie.num_prefixes,
                           "nodes": len(inner)},
             "decoding": {k: getattr(decoding, k) for k in ("normaliser", "num_beams", "temperature")},
             "versions": {"torch": torch.__version__, "numpy": np.__version__}}
    diagnosis = Diagnosis({**about, "beams": searched}, {**arrays, "rows": sample.rows})
    _check_weights(diagnosis, item, workspace)
    diagnosis = diagnosis.with_beams(question.beams)
    diagnoses.write(diagnoses.path_of(workspace.store, record), diagnosis)
    return diagnosis


def _check_weights(diagnosis: Diagnosis, item: Prepared, workspace: Workspace) -> None:
    """The run's own beam ranks as the record says; what cannot be known is let pass. Raises: UserError."""
    decoding, evaluation = item.config.decoding, item.config.evaluation
    if evaluation.exclude_history:
        return
    places = diagnosis.of(decoding.normaliser, "beam_rank")[:, diagnosis.beam(decoding.num_beams)]
    stored = workspace.store.read_ranks(workspace.store.read(item.run_id)).id_places[diagnosis.arrays["rows"]]
    other = int((np.where(places > evaluation.max_k, 0, places) != stored).sum())
    if other > max(1, MOST_DIFFERENT * len(stored)):
        raise UserError(_strangers(item, workspace, f"{other} of {len(stored)} targets have another place"))


def _strangers(item: Prepared, workspace: Workspace, why: str) -> str:
    return (f"the weights in {workspace.folder(item.run_id)} are not those of record {item.run_id}: {why}. Delete the "
            "record and that folder, and run again.")


def _summary(diagnosis: Diagnosis) -> str:
    """One line on the list that the run itself makes, or on the widest beam's."""
    own = diagnosis.about["decoding"]
    beam = own["num_beams"] if own["num_beams"] in diagnosis.beams else diagnosis.beams[-1]
    k = min(TOP, beam)
    lost = pruning_rate([diagnosis], own["normaliser"], k=k, beam=beam)
    if not lost.n:
        return f"full sorting ranks no target within {k}"
    return f"beam {beam} loses {lost.value:.1%} of {lost.n} targets that full sorting ranks within {k}"


def _name(item: Prepared) -> str:
    return f"{item.config.label}, {item.dataset}, seed {item.config.seed}"
