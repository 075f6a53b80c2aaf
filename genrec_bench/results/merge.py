"""Finished records, of this machine or of others, moved into one folder: everything is checked first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from genrec_bench.core.errors import UserError
from genrec_bench.core.provenance import VERSIONS, told_apart
from genrec_bench.core.registry import metrics
from genrec_bench.metrics.base import expected_values
from genrec_bench.results import diagnoses, test_users
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.results.index import NAME as INDEX
from genrec_bench.results.index import write_index
from genrec_bench.results.makers import made_by, makers, same_file
from genrec_bench.results.records import RANKS, Damaged, RecordStore, RunRecord
from genrec_bench.results.test_users import UserFacts

MACHINE = ("cpu", "device", "threads")
CHECKED = 10  # list length whose metrics are compared with the ranks
TOLERANCE = 1e-9  # of a metric beside the one that its ranks give: means may be summed in another order


@dataclass(frozen=True)
class Merged:
    """What a merge did. moved: records that are new in the target. known: records that it had already, with equal
    numbers. diagnoses: those that were taken along."""

    moved: int
    known: int
    diagnoses: int


@dataclass(frozen=True)
class _Found:
    """A run of a source. diagnosis: to be taken along, if any; known: the target's record of this name, if any."""

    record: RunRecord
    source: RecordStore
    diagnosis: Diagnosis | None
    known: RunRecord | None = None


def merge(sources: Sequence[Path], into: Path, *, maker: str | None = None, writes: bool = True) -> Merged:
    """Move all records below the source folders to `into`; none is moved where anything is wrong with one of them.

    A diagnosis goes with its record, also where the target has the record already; one of more users stays in its
    place. The facts about test users go with the records of their split. The target's index is written again.
    maker: who made the records, other than us, whatever they say themselves; it is noted in them, and in an equal
    record that the target has already. writes: False only checks, and says what would be done.
    Raises: UserError for a folder that is missing or holds no records, for damaged files, for one name with different
    numbers, and for a metric that is not the one its ranks give.
    """
    stores = _stores(sources, into)
    target = RecordStore(into, frozenset(store.root.resolve() for store in stores))
    everything = _found(stores, maker)
    moves = [_compared(found, target) for found in _one_a_name(everything)]
    for found in moves:
        _check_metrics(found.record, found.source)
    users = _users(everything, target)
    if writes:
        _write(moves, users, target)
        for found in everything:
            _remove(found.source, found.record)
    moved = sum(found.known is None for found in moves)
    return Merged(moved, len(moves) - moved, sum(found.diagnosis is not None for found in moves))


def _stores(sources: Sequence[Path], into: Path) -> list[RecordStore]:
    """The folders to take records from, each once; what is below two of them belongs to the inner one alone.

    Raises: UserError for a folder that is missing, or that receives the records.
    """
    for folder in sources:
        if folder.resolve() == into.resolve():
            raise UserError(f"records cannot be moved from {folder} into the same folder. Name another one.")
        if not folder.is_dir():
            raise UserError(f"no folder of records at {folder}. Run a suite first, or name another folder.")
    places = {folder.resolve(): folder for folder in sources}
    apart = {*places, into.resolve()}
    return [RecordStore(folder, frozenset(apart - {place})) for place, folder in places.items()]


def _found(sources: list[RecordStore], maker: str | None) -> list[_Found]:
    found = [_Found(made_by(record, [maker]) if maker else record, source, diagnoses.find(source, record))
             for source in sources for record in source.read_all(_refuse)]
    if not found:
        raise UserError(f"no records below {', '.join(str(s.root) for s in sources)}. Run a suite first, or name "
                        "another folder.")
    return found


def _refuse(error: Damaged) -> None:
    raise UserError(f"{error} Nothing was moved.")


def _one_a_name(found: list[_Found]) -> list[_Found]:
    """The first of each name, with the diagnosis of most users. Raises: UserError where two sources have other numbers
    under one name."""
    first: dict[str, _Found] = {}
    for other in found:
        one = first.setdefault(other.record.run_id, other)
        if what := _difference(one.record, one.source, other.record, other.source):
            raise UserError(f"run {one.record.run_id} has other numbers in {one.source.root} than in "
                            f"{other.source.root} ({what}). Nothing was moved. {_cause(one.record, other.record)}")
        more = other if _users_of(other.diagnosis) > _users_of(one.diagnosis) else one
        first[one.record.run_id] = replace(one, record=_joined(one.record, other.record), diagnosis=more.diagnosis)
    return list(first.values())


def _joined(one: RunRecord, other: RunRecord) -> RunRecord:
    """The first of two records of equal numbers with the makers of both; a copy of it adds none."""
    return one if same_file(one, other) else made_by(one, makers(one) | makers(other))


def _compared(found: _Found, target: RecordStore) -> _Found:
    """A run beside the target's of its name. Raises: UserError where numbers differ."""
    record, source = found.record, found.source
    if target.find(record.run_id) is None:
        return found
    known = target.read(record.run_id)
    if what := _difference(known, target, record, source):
        raise UserError(f"run {record.run_id} is in {target.root} with other numbers ({what}). Nothing was moved. "
                        f"{_cause(known, record)}")
    more = _users_of(diagnoses.find(target, known)) > _users_of(found.diagnosis)
    return replace(found, known=known, diagnosis=None if more else found.diagnosis)


def _check_metrics(record: RunRecord, source: RecordStore) -> None:
    """Raises: UserError where an item-level metric at 10 is not that of the record's own ranks."""
    for metric, unseen in product(metrics.names(), (False, True)):
        ranks, name = source.read_ranks(record, unseen=unseen), f"{'unseen_' * unseen}{metric}@{CHECKED}"
        value = float(expected_values(metric, ranks, CHECKED).mean(dtype=np.float64))
        stated = record.metrics.get(name, value)
        if not abs(stated - value) <= TOLERANCE:
            raise UserError(f"run {record.run_id} in {source.root} has {name} = {stated}, but its ranks give {value}. "
                            "Nothing was moved. One of its two files was changed: restore it, or delete both and run "
                            "again.")


def _users_of(diagnosis: Diagnosis | None) -> int:
    return diagnosis.num_users if diagnosis is not None else 0


def _difference(known: RunRecord, there: RecordStore, record: RunRecord, here: RecordStore) -> str | None:
    """The first number in which two runs of one name differ, or None; how a file packs ranks does not count."""
    for name in sorted({*known.metrics, *record.metrics}):
        if known.metrics.get(name) != record.metrics.get(name):
            return f"{name}: {known.metrics.get(name)} there, {record.metrics.get(name)} here"
    pairs = [(there.read_ranks(known, unseen=u), here.read_ranks(record, unseen=u)) for u in (False, True)]
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for one, other in pairs for name in RANKS)
    return None if same else "other ranks"


def _cause(known: RunRecord, record: RunRecord) -> str:
    """Why two runs of one name have other numbers, as far as they say where each was made, and what to do."""
    places = [{name: r.provenance[name] for name in (*VERSIONS, *MACHINE) if name in r.provenance}
              for r in (known, record)]
    if apart := told_apart(*places):
        return (f"They were made in two ways ({apart}) and both may be right, but a folder holds one run of a name: "
                "merge into another folder, or move the one away that is not wanted.")
    return ("Both say that they were made in the same way, so one of them was changed: delete the wrong one, or both "
            "and run again.")


def _users(found: list[_Found], target: RecordStore) -> dict[Path, UserFacts]:
    """The facts about test users that the target lacks, by path. Raises: UserError for a damaged file."""
    fresh = {}
    for one in found:
        split = one.record.dataset, one.record.split_fingerprint
        ours, theirs = test_users.find_users(one.source, *split), test_users.find_users(target, *split)
        if ours is not None and theirs is None:
            fresh[test_users.path_of(target, *split)] = ours
    return fresh


def _write(moves: list[_Found], users: dict[Path, UserFacts], target: RecordStore) -> None:
    """Write into the target."""
    for found in moves:
        fresh = replace(found.record, path=None)  # it will be of the target, wherever it was read
        if found.known is None:
            target.write(fresh, *(found.source.read_ranks(found.record, unseen=u) for u in (False, True)))
        elif makers(both := _joined(found.known, found.record)) != makers(found.known):
            target.note(both)
        if found.diagnosis is not None:
            diagnoses.write(diagnoses.path_of(target, found.known or fresh), found.diagnosis)
    for path, facts in users.items():
        test_users.write_users(path, facts)
    write_index(target)


def _remove(store: RecordStore, record: RunRecord) -> None:
    """Delete a record that was moved, and the files beside it: ranks, diagnosis, facts about its users, index."""
    store.remove(record)
    diagnoses.path_of(store, record).unlink(missing_ok=True)
    if facts := test_users.stored_path(store, record.dataset, record.split_fingerprint):
        facts.unlink()
    (store.root / INDEX).unlink(missing_ok=True)
