"""Who made a run: noted when its record is merged, and what that is worth as a word on the leaderboard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from genrec_bench.core.errors import UserError
from genrec_bench.results.records import RunRecord

NOTE = "made_by"  # in `provenance`; absent = here alone
HERE = "here"
REPORTED, RERUN = "self-reported", "re-run"
LONGEST = 40


def check_maker(name: str) -> str:
    """A name that a maker may have. Raises: UserError."""
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > LONGEST or name == HERE:
        raise UserError(f"--as takes a name of 1 to {LONGEST} printed characters, other than {HERE!r}, got {name!r}.")
    return name


def makers(record: RunRecord) -> frozenset[str]:
    """Everybody who made this run with equal numbers, HERE for runs of ours."""
    return frozenset(record.provenance.get(NOTE) or (HERE,))


def made_by(record: RunRecord, names: Iterable[str]) -> RunRecord:
    """The record with these makers noted; HERE alone needs no note."""
    names = sorted(set(names))
    return replace(record, provenance=_own(record) | ({} if names == [HERE] else {NOTE: names}))


def same_file(one: RunRecord, other: RunRecord) -> bool:
    """Whether two records are of one making, as a copy is: no two runs take the same time to the last digit."""
    return one.timings == other.timings and _own(one) == _own(other)


def badge(record: RunRecord) -> str:
    """RERUN where we made it and somebody else did too, REPORTED where only others did, "" for what is ours alone."""
    names = makers(record)
    return "" if names == {HERE} else RERUN if HERE in names else REPORTED


def _own(record: RunRecord) -> dict[str, Any]:
    """The provenance as the run wrote it."""
    return {name: value for name, value in record.provenance.items() if name != NOTE}
