"""A suite of `[[block]]` tables is a queue: what is run, in the order of what it teaches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache

from genrec_bench.core import registry, settings
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.seeds import check_seeds
from genrec_bench.experiments.file_forms import BlockRow
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.experiments.identity import method
from genrec_bench.experiments.suite_files import load_suite, profile_names, suite_names, suite_path

DEFAULT_PROFILE = "quick"
OWN = ""  # the profile of a selection that leaves it to the blocks


def blocks(name: str) -> tuple[BlockRow, ...]:
    """The blocks of a queue, in order; () for a suite that is none. Raises: UserError naming what is wrong in its file.
    """
    data, found = load_suite(name), []
    for number, table in enumerate(data.get("block", ()), 1):
        where = f"{suite_path(name)}, block {number}"
        if not isinstance(table, dict):
            raise UserError(f"{where} must be a table, got {table!r}.")
        block = settings.build(BlockRow, table, where)
        if block.suite not in data["suite"].get("includes", ()):
            raise unknown("suite", block.suite, data["suite"].get("includes", ()), f"{where}; the queue includes")
        if not block.rows and not block.baselines:
            raise UserError(f"{where} names no rows and no baselines.")
        _check_names(block, where)
        found.append(block)
    return tuple(found)


def _check_names(block: BlockRow, where: str) -> None:
    """Refuse data sets and a profile that there are not, rows that the block's suite has not, and seeds twice.

    Raises: UserError.
    """
    for name in block.datasets or ("",):
        if name not in registry.datasets.names():
            raise unknown("dataset", name, registry.datasets.names(), f"{where}, datasets")
    if block.seeds:
        check_seeds(block.seeds, f"{where}, seeds")
    if block.profile not in profile_names():
        raise unknown("profile", block.profile, profile_names(), where)
    rows = load_suite(block.suite)["row"]
    for key, given in (("label", block.rows), ("baseline", block.baselines)):
        known = [row[key] for row in rows if key in row]
        for name in given:
            if name not in known:
                raise unknown("row" if key == "label" else key, name, known, where)


def profile_of(suite: str, given: str | None) -> str:
    """The profile of a selection: as given, else the blocks' own in a queue, else the default."""
    return given or (OWN if load_suite(suite).get("block") else DEFAULT_PROFILE)


def selections(selection: Selection) -> list[Selection]:
    """What a selection runs, a part a block; a suite without blocks is the only part.

    Data sets, profile and seeds that are asked for take the place of a block's own.

    Raises: UserError where rows of a queue are chosen, which its file does.
    """
    parts = blocks(selection.suite)
    if not parts:
        return [selection]
    given = {"--objectives": selection.objectives, "--row": selection.rows, "--baselines": selection.baselines,
             "--grid": selection.grid}
    for option, value in given.items():
        if value is not None:
            raise UserError(f"suite {selection.suite} is a queue, whose file says which rows are run. Leave {option} "
                            f"out, or name one of its suites: {', '.join(dict.fromkeys(b.suite for b in parts))}.")
    return [Selection(block.suite, selection.profile or block.profile, selection.datasets or block.datasets, None,
                      block.baselines, selection.seeds or block.seeds or None, selection.overrides, None, block.rows)
            for block in parts]


@cache
def declared_seeds() -> Mapping[tuple[str, str, str], frozenset[int]]:
    """(profile, dataset, method) -> the seeds that the blocks of our own queues run of it."""
    found: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for part in (part for name in suite_names() if blocks(name) for part in selections(Selection(name, OWN))):
        for config in expand(part):
            found[config.profile, config.dataset.name, method(config)].add(config.seed)
    return {key: frozenset(seeds) for key, seeds in found.items()}
