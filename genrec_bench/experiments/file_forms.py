"""What a suite, profile or baseline file may hold; `suite_files` reads them."""

from __future__ import annotations

import dataclasses
from typing import Any

from genrec_bench.core.seeds import MAX_SEED
from genrec_bench.core.settings import setting

REQUIRED: Any = dataclasses.MISSING
PAGES = ("training-free",)  # of `reporting.training_free`
GRIDS = ("core", "backbones", "full")  # each holds those before it


@dataclasses.dataclass(frozen=True)
class SuiteHead:
    """`[suite]`: a grid of rows, or with `includes` the names of other suites that it joins."""

    name: str = setting(REQUIRED, "the file's name without .toml")
    title: str = setting(REQUIRED, "one line for people")
    paper: str | None = setting(None, "whose printed numbers are shown beside ours")
    includes: tuple[str, ...] = setting((), "suites this one stands for; it then has no rows of its own")
    page: str | None = setting(None, "page of the reports that is made from its records", choices=PAGES)
    datasets: tuple[str, ...] = setting((), "datasets where the user names none, those whose files are there; absent = "
                                            "the profile's")
    declared: str = setting("", "when its comparisons were declared, and what was known then")
    diagnose: int = setting(0, "test users of a run that are diagnosed when it ends; 0 = no run is", low=0)


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """Where the paper prints this method."""

    backbone: str = setting(REQUIRED, "as the paper's file spells it")
    method: str = setting(REQUIRED, "as the paper's file spells it")
    table: int = setting(1, "which of its tables")


@dataclasses.dataclass(frozen=True)
class SuiteRow:
    """`[[row]]`: a baseline, or a backbone trained with objectives, after a first stage or not."""

    baseline: str | None = setting(None, "name of a baseline file")
    label: str | None = setting(None, "name in tables, of a generative row")
    backbone: dict | None = setting(None, "{ name = ..., <setting> = ... }")
    objective: tuple[dict, ...] = setting((), "[{ name = ..., <setting> = ... }, ...], each with an optional weight")
    tokenizer: dict | None = setting(None, "{ name = ..., <setting> = ... }; absent = the dataset's own")
    paper_row: PaperRow | None = setting(None, "where the paper prints it")
    first_stage: dict | None = setting(None, "{ objective = [...], continues = true }: what is trained before; "
                                             "decoding = { ... } where it is searched otherwise than the row")
    decoding: dict | None = setting(None, "{ <setting> = ... } of the decoding section, for this row, or a preset")
    training: dict | None = setting(None, "{ <setting> = ... } of the training section, for this row, or a preset")
    best: int | None = setting(None, "table of the paper with the best weight and eta for each dataset")
    best_row: PaperRow | None = setting(None, "whose best values those are; absent = paper_row's")
    best_only: str | None = setting(None, "the one of the paper's two that is taken; absent = both",
                                    choices=("weight", "eta"))
    grid: str = setting("core", "the smallest grid that the row is part of", choices=GRIDS)


@dataclasses.dataclass(frozen=True)
class SweepRow(SuiteRow):
    """`[[sweep]]`: a row for each value of some settings; its label closes with setting and value."""

    vary: dict = setting(None, '{ "objective.1.weight" = [...], ... }, varied one at a time')


@dataclasses.dataclass(frozen=True)
class FamilyRow:
    """`[[family]]`: comparisons that are declared in advance and corrected together; only they carry verdicts."""

    name: str = setting(REQUIRED, "what reports call it")
    rows: tuple[str, ...] = setting(REQUIRED, "labels of the rows without their backbone")
    against: str = setting(REQUIRED, "label without backbone of the row they are measured by, or a baseline's name")
    backbones: tuple[str, ...] = setting(REQUIRED, "registered names")
    datasets: tuple[str, ...] = setting(REQUIRED, "registered names")
    metric: str = setting("ndcg@10", "name@k")


@dataclasses.dataclass(frozen=True)
class BlockRow:
    """`[[block]]`: rows of one suite that a queue runs next."""

    why: str = setting(REQUIRED, "what it teaches, in a line for people")
    suite: str = setting(REQUIRED, "one of the suites that the queue includes")
    profile: str = setting(REQUIRED, "name of a profile")
    datasets: tuple[str, ...] = setting(REQUIRED, "registered names")
    rows: tuple[str, ...] = setting((), "labels of generative rows")
    baselines: tuple[str, ...] = setting((), "registered names")
    seeds: tuple[int, ...] = setting((), "absent = the profile's", low=0, high=MAX_SEED)


@dataclasses.dataclass(frozen=True)
class SuiteFile:
    """A suite file."""

    suite: SuiteHead = setting(REQUIRED, "what it is")
    row: tuple[SuiteRow, ...] = setting((), "its methods")
    sweep: tuple[SweepRow, ...] = setting((), "methods with settings that are varied")
    family: tuple[FamilyRow, ...] = setting((), "comparisons that are declared in advance")
    block: tuple[BlockRow, ...] = setting((), "of a suite with includes: what is run of them, in order")
    tune: dict = setting(None, "{ <section, component or baseline> = { <setting> = [values that `tune` tries] } }; "
                               "settings that go together: { \"a+b\" = [[value of a, value of b], ...] }")


@dataclasses.dataclass(frozen=True)
class ProfileFile:
    """A profile file; the parts that settings name are checked where runs are planned."""

    title: str = setting(REQUIRED, "one line for people")
    seeds: tuple[int, ...] = setting(REQUIRED, "seeds of every run", low=0, high=MAX_SEED)
    datasets: tuple[str, ...] = setting(REQUIRED, "datasets where the user names none")
    undecided: str | None = setting(None, "why its runs answer no claim of a paper, in a word; absent = they may")
    tested: bool = setting(True, "false: its numbers mean nothing, so nothing of it is tested or told")
    tuning: str | None = setting(None, "how the settings were chosen, with the number of trials; reports print it")
    grid: str = setting("core", "which rows run where the user does not say", choices=GRIDS)
    settings: dict = setting(None, "{ <section, component or baseline> = { <setting> = ... } }")
    datasets_settings: dict = setting(None, "{ <dataset> = like settings }")
    trials: dict = setting(None, "like settings, above those, of what `tune` tries alone: how trials are made cheaper")


@dataclasses.dataclass(frozen=True)
class BaselineFile:
    """A baseline file: settings that are not the defaults of the registered baseline, and where each comes from."""

    settings: dict = setting(None, "{ <setting> = value }")
    profiles: dict = setting(None, "{ <profile> = settings that differ there }")
    sources: dict = setting(None, "{ <setting> = where its value comes from }")
