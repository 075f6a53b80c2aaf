"""A suite of `[[block]]` tables is a queue: what is run, in the order of what it teaches."""

from __future__ import annotations

from dataclasses import dataclass

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.seeds import MAX_SEED
from genrec_bench.core.settings import setting
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.suite_files import REQUIRED, load_profile, load_suite, suite_path

DEFAULT_PROFILE = "quick"
OWN = ""  # the profile of a selection that leaves it to the blocks


@dataclass(frozen=True)
class Block:
    """`[[block]]`: rows of one suite that are run next to each other."""

    why: str = setting(REQUIRED, "what it teaches, in a line for people")
    suite: str = setting(REQUIRED, "one of the suites that the queue includes")
    profile: str = setting(REQUIRED, "name of a profile")
    datasets: tuple[str, ...] = setting(REQUIRED, "registered names")
    rows: tuple[str, ...] = setting((), "labels of generative rows")
    baselines: tuple[str, ...] = setting((), "registered names")
    seeds: tuple[int, ...] = setting((), "absent = the profile's", low=0, high=MAX_SEED)

    def selection(self, given: Selection) -> Selection:
        """What is run of it; data sets, profile and seeds that are asked for take the place of its own."""
        return Selection(self.suite, given.profile or self.profile, given.datasets or self.datasets, None,
                         self.baselines, given.seeds or self.seeds or None, given.overrides, None, self.rows)


def blocks(name: str) -> tuple[Block, ...]:
    """The blocks of a queue, in order; () for a suite that is none. Raises: UserError naming what is wrong in its file.
    """
    data, found = load_suite(name), []
    for number, table in enumerate(data.get("block", ()), 1):
        where = f"{suite_path(name)}, block {number}"
        if not isinstance(table, dict):
            raise UserError(f"{where} must be a table, got {table!r}.")
        block = settings.build(Block, table, where)
        if block.suite not in data["suite"].get("includes", ()):
            raise unknown("suite", block.suite, data["suite"].get("includes", ()), f"{where}; the queue includes")
        if not block.rows and not block.baselines:
            raise UserError(f"{where} names no rows and no baselines.")
        _check_names(block, where)
        found.append(block)
    return tuple(found)


def _check_names(block: Block, where: str) -> None:
    """Refuse rows that the block's suite has not, and a wrong profile. Raises: UserError."""
    rows = load_suite(block.suite)["row"]
    for key, given in (("label", block.rows), ("baseline", block.baselines)):
        known = [row[key] for row in rows if key in row]
        for name in given:
            if name not in known:
                raise unknown("row" if key == "label" else key, name, known, where)
    load_profile(block.profile)


def profile_of(suite: str, given: str | None) -> str:
    """The profile of a selection: as given, else the blocks' own in a queue, else the default."""
    return given or (OWN if load_suite(suite).get("block") else DEFAULT_PROFILE)


def selections(selection: Selection) -> list[Selection]:
    """What a selection runs, a part a block; a suite without blocks is the only part.

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
    return [block.selection(selection) for block in parts]
