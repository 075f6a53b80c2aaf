"""`compare`: one objective in, a verdict out: it is trained like the stored baselines and tested against them."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genrec_bench import declared, plan, registry
from genrec_bench.commands import common
from genrec_bench.commands.run import prepare_configs, run_all
from genrec_bench.errors import UserError
from genrec_bench.plan import Overrides, Selection, parse_overrides
from genrec_bench.records import RecordStore, RunRecord
from genrec_bench.runner import Prepared, Workspace

TITLES = {"tiger": "TIGER", "llama": "Llama"}


@dataclass(frozen=True)
class Question:
    """What is compared: an objective (a registered name), alone or added to others, on which backbone and data.

    beside: registered objectives that are trained with it; weight: of the objective. seeds: None = those of the stored
    runs of the same backbone and profile, else the profile's. reference: the folder of stored records.
    """

    objective: str
    backbone: str = "tiger"
    beside: tuple[str, ...] = ()
    weight: float = 1.0
    datasets: tuple[str, ...] | None = None
    profile: str = "quick"
    seeds: tuple[int, ...] | None = None
    overrides: Overrides | None = None
    reference: Path = common.REFERENCE

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
    """A finished comparison: a sentence a stored baseline, where the report is, and the new runs' records."""

    sentences: tuple[str, ...]
    report: Path
    records: tuple[RunRecord, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    parser.add_argument("--objective", required=True, metavar="FILE.py:CLASS",
                        help="your own file and the class in it, or a registered objective")
    parser.add_argument("--with", type=common.comma_list, default=[], metavar="A,B", dest="beside",
                        help="registered objectives that are trained beside it, such as cross_entropy")
    parser.add_argument("--weight", type=float, default=1.0, metavar="W", help="weight of the objective (default: 1)")
    parser.add_argument("--backbone", default="tiger", metavar="NAME", help="see `list backbones` (default: tiger)")
    parser.add_argument("--profile", default="quick", metavar="NAME", help="smoke, quick (default) or paper")
    common.add_data(parser)
    parser.add_argument("--seeds", type=common.comma_list, default=None, metavar="0,1,2",
                        help="seeds (default: those of the stored runs)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides",
                        help="change one setting of the objective, such as my_loss.tau=2")
    parser.add_argument("--reference", type=Path, default=common.REFERENCE, metavar="DIR",
                        help="stored baselines (default: results/reference)")
    parser.add_argument("--no-check", action="store_true", help="train even where a contract check fails")
    common.add_results(parser)
    common.add_device(parser)
    common.add_jobs(parser)


def run(args: argparse.Namespace) -> int:
    """Check, train, compare, print. Exit code 1 where a check or a run fails. Raises: UserError."""
    from genrec_bench.plugin_file import is_file, load_objective

    own = is_file(args.objective)
    name = load_objective(args.objective) if own else args.objective
    registry.objectives.get(name, "--objective")
    workspace = replace(common.workspace(args), plugins=(args.objective,) if own else ())
    question = Question(name, args.backbone, tuple(args.beside), args.weight,
                        tuple(args.datasets) if args.datasets else None, args.profile, common.seeds(args.seeds),
                        parse_overrides(args.overrides), args.reference)
    jobs, reports = common.jobs(args), common.reports_dir(args)
    prepared = prepare(question, workspace)  # whatever is wrong with the question is said before anything else
    if not checked(name) and not args.no_check:
        print(f"error: objective {name} breaks its contract (above), so nothing was trained. Mend it, or train it as "
              "it is with --no-check.", file=sys.stderr)
        return 1
    verdict = compare(question, prepared, workspace, jobs, reports)
    if verdict is None:
        return 1
    print("\n".join(verdict.sentences) or "No stored baseline has the same data, split, evaluation and profile.")
    print(f"report: {verdict.report}")
    return 0


def checked(name: str) -> bool:
    """Whether the objective keeps its contract; prints what does not hold."""
    from genrec_bench.check import check_objective

    findings = check_objective(registry.objectives.get(name))
    broken = [f for f in findings if not f.passed]
    for finding in broken:
        print(f"FAILED  {finding.name}: {finding.detail}", file=sys.stderr)
    print(f"{name}: {len(findings)} contract checks, {len(broken) or 'none'} failed.", file=sys.stderr)
    return not broken


def prepare(question: Question, workspace: Workspace) -> list[Prepared]:
    """The new objective's runs, ready to start. Raises: UserError for whatever is wrong with the question."""
    registry.backbones.get(question.backbone, "--backbone")
    for name in question.beside:
        registry.objectives.get(name, "--with")
    if not question.reference.is_dir():
        raise UserError(f"no folder of stored baselines at {question.reference}. Give --reference.")
    overrides = question.overrides or {}
    seeds = question.seeds or _stored_seeds(question)
    selection = Selection("all", question.profile, question.datasets, seeds=seeds, overrides=overrides)
    configs = plan.expand_rows([question.row], selection)
    plan.check_overrides(overrides, configs)
    return prepare_configs(configs, workspace, keep=True)


def compare(question: Question, prepared: list[Prepared], workspace: Workspace, jobs: int,
            reports: Path) -> Verdict | None:
    """Train what is missing and test it against every stored baseline; None where a run failed."""
    from genrec_bench.reporting.comparison import render_comparison

    if run_all(prepared, workspace, jobs):
        return None
    new = [workspace.store.read(p.run_id) for p in prepared]
    stored = RecordStore(question.reference)
    ours = {record.run_id for record in new}

    def ranks(record: RunRecord) -> Any:
        return (workspace.store if record.run_id in ours else stored).read_ranks(record)

    path, lines = render_comparison(new, stored.read_all(), ranks, reports / "compare" / question.objective,
                                    missing=_missing(question, prepared, workspace, stored))
    return Verdict(tuple(lines), path, tuple(new))


def _stored_seeds(question: Question) -> tuple[int, ...] | None:
    """Seeds of the stored runs of this backbone in this profile, or None where there is none."""
    found = {r.seed for r in RecordStore(question.reference).read_all()
             if r.profile == question.profile and (r.config.get("backbone") or {}).get("name") == question.backbone
             and (question.datasets is None or r.dataset in question.datasets)}
    return tuple(sorted(found)) or None


def _missing(question: Question, prepared: list[Prepared], workspace: Workspace,
             stored: RecordStore) -> list[tuple[str, str]]:
    """(label, command) of the suites' baselines, and of this backbone's rows, that have no stored record."""
    seeds = tuple(sorted({p.config.seed for p in prepared}))
    seen, missing = set(), []
    for suite in plan.parts_of("all"):
        rows = [row for row in plan.load_suite(suite)["row"] if row.get("grid", "core") != "full"
                and ("baseline" in row or row["backbone"]["name"] == question.backbone)]
        for row in rows:
            configs = plan.expand_rows([row], Selection(suite, question.profile, question.datasets, seeds=seeds))
            for dataset in dict.fromkeys(c.dataset["name"] for c in configs):
                absent = [c for c in configs if c.dataset["name"] == dataset
                          and stored.find(workspace.prepare(c, keep=False).run_id) is None]
                key = (dataset, row.get("baseline") or row["label"])
                if absent and key not in seen:
                    seen.add(key)
                    missing.append(_how_to_make(absent, row, suite, dataset, question))
    return missing


def _how_to_make(absent: list[Any], row: dict[str, Any], suite: str, dataset: str,
                 question: Question) -> tuple[str, str]:
    which = ["--baselines", row["baseline"], "--objectives", "none"] if "baseline" in row else \
        ["--row", row["label"], "--baselines", "none"]
    seeds = ",".join(str(s) for s in sorted({c.seed for c in absent}))
    label = f"{absent[-1].label} on {dataset}" if "baseline" not in row else \
        f"{declared.load_baseline(row['baseline'])['name']} on {dataset}"
    words = ["python", "benchmark.py", "--suite", suite, "--profile", question.profile, "--datasets", dataset, *which,
             "--seeds", seeds]
    return label, shlex.join(words)
