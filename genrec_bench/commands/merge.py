"""`merge`: take finished records, of this machine or of others, into the committed reference."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genrec_bench.commands import common
from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.core.provenance import own_version
from genrec_bench.evaluate import score
from genrec_bench.results import diagnoses, test_users
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.results.errata import NAME as ERRATA
from genrec_bench.results.errata import Erratum, add_errata, errata
from genrec_bench.results.index import NAME as INDEX
from genrec_bench.results.index import write_index
from genrec_bench.results.records import Damaged, RecordStore, RunRecord
from genrec_bench.results.test_users import UserFacts
from genrec_bench.running.places import REFERENCE

TOLERANCE = 1e-9  # of a metric beside the one that its ranks give: means may be summed in another order


@dataclass(frozen=True)
class _Found:
    """A run of a source. diagnosis: to be taken along, if any; known: the target's record of this name, if any;
    erratum: what ours changes in it."""

    record: RunRecord
    source: RecordStore
    diagnosis: Diagnosis | None
    known: RunRecord | None = None
    erratum: Erratum | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `merge`."""
    common.add_results(parser)
    parser.add_argument("--from", type=Path, nargs="+", default=None, metavar="DIR", dest="sources",
                        help="folders of records to take, such as those of other machines (default: --results alone)")
    parser.add_argument("--into", type=Path, default=REFERENCE, metavar="DIR",
                        help="folder that receives the records (default: results/reference)")
    parser.add_argument("--correct", default=None, metavar="REASON",
                        help=f"replace runs whose numbers differ, and say so with this reason in {ERRATA} of --into")
    parser.add_argument("--index", action="store_true",
                        help=f"move nothing; write {INDEX} of --into again from its records")


def run(args: argparse.Namespace) -> int:
    """Check all, then move; an equal name with other numbers is refused before anything is moved, unless corrected.

    A diagnosis goes with its record, also where the record is there already; one of more users stays in its place.
    The facts about test users go with the records of their split. The target's index is written again.
    """
    if args.index:
        target = RecordStore(args.into)
        if not target.read_all():
            raise UserError(f"no records below {args.into} to write an index of.")
        print(write_index(target))
        return 0
    sources = _sources(args)
    target = RecordStore(args.into, frozenset(source.root.resolve() for source in sources))
    everything = _found(sources)
    moves = [_compared(found, target, _reason(args)) for found in _one_a_name(everything)]
    for found in moves:
        _check_metrics(found.record, found.source)
    users = _users(everything, target)
    errata(target.root)  # a damaged file is named before anything moves
    _move(moves, users, target)
    for found in everything:
        _remove(found.source, found.record)
        if users_file := test_users.stored_path(found.source, found.record.dataset, found.record.split_fingerprint):
            users_file.unlink()
        (found.source.root / INDEX).unlink(missing_ok=True)
    _tell(moves, args.into)
    return 0


def _sources(args: argparse.Namespace) -> list[RecordStore]:
    """The folders to take records from, each once; what is below two of them belongs to the inner one alone.

    Raises: UserError where one of them receives the records.
    """
    option, folders = ("--from", args.sources) if args.sources else ("--results", [args.results])
    for folder in folders:
        if folder.resolve() == args.into.resolve():
            raise UserError(f"{option} and --into are the same folder, {args.into}.")
        if option == "--from" and not folder.is_dir():
            raise UserError(f"--from names {folder}, which is not a folder.")
    places = {folder.resolve(): folder for folder in folders}
    apart = {*places, args.into.resolve()}
    return [RecordStore(folder, frozenset(apart - {place})) for place, folder in places.items()]


def _reason(args: argparse.Namespace) -> str | None:
    """The reason of a correction, None where there is none to be. Raises: UserError for an empty one."""
    if args.correct is not None and not args.correct.strip():
        raise UserError("--correct needs a reason, which ERRATA.md keeps: --correct \"what was wrong\".")
    return args.correct


def _found(sources: list[RecordStore]) -> list[_Found]:
    found = [_Found(record, source, diagnoses.find(source, record)) for source in sources
             for record in source.read_all(_refuse)]
    if not found:
        raise UserError(f"no records below {', '.join(str(s.root) for s in sources)}. Run a suite first, or give "
                        "--results or --from.")
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
                            f"{other.source.root} ({what}). Nothing was moved. Take the wrong one out.")
        if _users_of(other.diagnosis) > _users_of(one.diagnosis):
            first[one.record.run_id] = replace(one, diagnosis=other.diagnosis)
    return list(first.values())


def _compared(found: _Found, target: RecordStore, reason: str | None) -> _Found:
    """A run beside the target's of its name. Raises: UserError where numbers differ and there is no reason."""
    record, source = found.record, found.source
    if target.find(record.run_id) is None:
        return found
    known = target.read(record.run_id)
    what = _difference(known, target, record, source)
    if what is None:
        more = _users_of(diagnoses.find(target, known)) > _users_of(found.diagnosis)
        return replace(found, known=known, diagnosis=None if more else found.diagnosis)
    if reason is None:
        raise UserError(f"run {record.run_id} is in {target.root} with other numbers ({what}). Nothing was moved. An "
                        "equal name must mean equal numbers: compare device, threads and versions in the two records. "
                        "Where the numbers there are wrong, give --correct \"what was wrong\".")
    users = _users_changed(target.read_ranks(known), source.read_ranks(record))
    return replace(found, known=known, erratum=Erratum.between(known, record, users, reason, own_version()))


def _check_metrics(record: RunRecord, source: RecordStore) -> None:
    """Raises: UserError where an item-level metric at 10 is not that of the record's own ranks."""
    for name, value in score(source.read_ranks(record), ks=(10,), id_level=False).items():
        told = record.metrics.get(name, value)
        if not abs(told - value) <= TOLERANCE:
            raise UserError(f"run {record.run_id} in {source.root} has {name} = {told}, but its ranks give {value}. "
                            "Nothing was moved. One of its two files was changed: restore it, or delete both and run "
                            "again.")


def _users_of(diagnosis: Diagnosis | None) -> int:
    return diagnosis.num_users if diagnosis is not None else 0


def _difference(known: RunRecord, there: RecordStore, record: RunRecord, here: RecordStore) -> str | None:
    """The first number in which two runs of one name differ, or None; how a file packs ranks does not count."""
    for name in sorted({*known.metrics, *record.metrics}):
        if known.metrics.get(name) != record.metrics.get(name):
            return f"{name}: {known.metrics.get(name)} there, {record.metrics.get(name)} here"
    return "other ranks" if _users_changed(there.read_ranks(known), here.read_ranks(record)) else None


def _users_changed(one: Rankings, other: Rankings) -> int:
    """Test users whose ranks differ; all of the longer list where there are more of them in one."""
    pairs = [(getattr(one, f), getattr(other, f)) for f in ("places", "ties", "id_places")]
    if any(a.shape != b.shape for a, b in pairs):
        return max(len(one.places), len(other.places))
    return int(np.any([a != b for a, b in pairs], axis=0).sum())


def _users(found: list[_Found], target: RecordStore) -> dict[Path, UserFacts]:
    """The facts about test users that the target lacks, by path. Raises: UserError for a damaged file."""
    fresh = {}
    for one in found:
        split = one.record.dataset, one.record.split_fingerprint
        ours, theirs = test_users.find_users(one.source, *split), test_users.find_users(target, *split)
        if ours is not None and theirs is None:
            fresh[test_users.path_of(target, *split)] = ours
    return fresh


def _move(moves: list[_Found], users: dict[Path, UserFacts], target: RecordStore) -> None:
    """Write into the target. The errata come first, so that no number ever changes without a word."""
    add_errata(target.root, [found.erratum for found in moves if found.erratum])
    for found in moves:
        if found.erratum:
            _remove(target, found.known)
        fresh = replace(found.record, path=None)  # it will be of the target, wherever it was read
        if found.erratum or found.known is None:
            target.write(fresh, found.source.read_ranks(found.record))
        if found.diagnosis is not None:
            there = fresh if found.erratum or found.known is None else found.known
            diagnoses.write(diagnoses.path_of(target, there), found.diagnosis)
    for path, facts in users.items():
        test_users.write_users(path, facts)
    write_index(target)


def _remove(store: RecordStore, record: RunRecord) -> None:
    """Delete a record with its ranks and its diagnosis, which is of these numbers."""
    store.remove(record)
    diagnoses.path_of(store, record).unlink(missing_ok=True)


def _tell(moves: list[_Found], into: Path) -> None:
    fresh, corrected = sum(f.known is None for f in moves), sum(f.erratum is not None for f in moves)
    diagnosed = sum(f.diagnosis is not None for f in moves)
    text = f"{fresh} records moved to {into}, {len(moves) - fresh - corrected} were there already."
    text += f" Corrected: {corrected}; see {into / ERRATA}." if corrected else ""
    print(text + (f" Diagnoses taken along: {diagnosed}." if diagnosed else ""))
