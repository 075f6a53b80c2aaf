"""Records from elsewhere: whether they are what they say, and taking those that are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical
from genrec_bench.evaluate import KS, score
from genrec_bench.experiments import identity
from genrec_bench.experiments.config import RunConfig, from_dict
from genrec_bench.results import diagnoses, test_users
from genrec_bench.results.index import NAME as INDEX
from genrec_bench.results.makers import check_maker
from genrec_bench.results.merge import TOLERANCE, Merged, merge
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.running.workspace import Workspace

BESIDE = (".ranks.npz", ".diagnosis.npz")  # what belongs to a record of the same name
USERS = ".users.npz"
VERSIONS = ("genrec_bench", "commit", "dirty", "torch", "python", "platform", "cpu", "device", "threads",
            "earlier")
SHAPE = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # of what is JSON, and no record


@dataclass
class Checked:
    """What was found in a folder of records. problems: what is wrong, notes: what to know, a line each. compared,
    absent: data sets whose fingerprints were compared with the data here, and those that are not at hand."""

    records: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compared: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)


def check_records(folder: Path, data_dir: Path | None) -> Checked:
    """Check every file below a folder of records; nothing is written. What validation gave cannot be checked, as only
    ranks of test rows are stored, nor what a run took.

    Raises: UserError for a folder that is missing or holds no record.
    """
    if not folder.is_dir():
        raise UserError(f"no folder of records at {folder}. Name the folder that was sent.")
    store, checked, damaged = RecordStore(folder), Checked(), []
    records = store.read_all(damaged.append)
    if not records and not damaged:
        raise UserError(f"no records below {folder}: files <run_id>.json with <run_id>.ranks.npz beside them.")
    checked.records, checked.problems = len(records), [str(error) for error in damaged]
    workspace = Workspace(folder, data_dir)
    for record in records:
        try:
            config = from_dict(record.config)
            found = [*_name(record, config), *_metrics(record, store), *_beside(record, store),
                     *_data(record, config, workspace, checked)]
        except UserError as error:  # such as a plug-in that is not loaded
            found = [str(error)]
        except SHAPE as error:
            found = [f"is no record of this version ({type(error).__name__}: {error})"]
        checked.problems += [f"{record.path}: {text}" for text in found]
    checked.notes += [*_odd(store, records), *_versions(records)]
    return checked


def take_records(sources: Sequence[Path], into: Path, maker: str, data_dir: Path | None) -> Merged:
    """Check records that somebody else made, then merge them under that name.

    Raises: UserError where anything is wrong with one of them; nothing is then moved.
    """
    check_maker(maker)
    problems = [text for folder in sources for text in check_records(folder, data_dir).problems]
    if problems:
        raise UserError(f"{problems[0]}. {len(problems)} such problem{'s' if len(problems) > 1 else ''}; nothing was "
                        "moved. `merge --check` lists them.")
    return merge(sources, into, maker=maker)


def _name(record: RunRecord, config: RunConfig) -> Iterator[str]:
    """Whether file, name, identity, method and settings say the same."""
    parts = record.identity
    if (name := identity.run_id(parts)) != record.run_id:
        yield f"its identity gives the name {name}"
    made = identity.identity_parts(config, parts["split_fingerprint"], parts.get("semantic_ids_fingerprint"),
                                   parts.get("uses", {}), parts.get("texts_fingerprint"))
    different = sorted(key for key in {*made, *parts} if canonical(made.get(key)) != canonical(parts.get(key)))
    if different:
        yield f"settings or versions of {', '.join(different)} are not those that its identity has"
    elif (method := identity.method(config)) != record.method:
        yield f"its settings give the method {method}, not {record.method}"


def _metrics(record: RunRecord, store: RecordStore) -> Iterator[str]:
    """Whether every metric of test is that of the ranks, and the ranks are ranks."""
    most = record.config["evaluation"]["max_k"]
    for begin, unseen in (("", False), ("unseen_", True)):
        ranks = store.read_ranks(record, unseen=unseen)
        if text := _wrong(ranks, most, record.data["test"]):
            yield f"{begin or 'test '}ranks: {text}"
            continue
        for name, value in score(ranks, ks=[k for k in KS if k <= most]).items():
            stated = record.metrics.get(f"{begin}{name}")
            if stated is None or not abs(stated - value) <= TOLERANCE:
                yield f"{begin}{name} is {stated}, its ranks give {value}"


def _wrong(ranks: Rankings, most: int, rows: int) -> str:
    """What is wrong with some ranks, or ""."""
    if len(ranks.ranks) != rows:
        return f"{len(ranks.ranks)} rows, the record states {rows}"
    inside = all(((values >= 0) & (values <= most)).all() for values in (ranks.ranks, ranks.id_ranks))
    return "" if inside and (ranks.ties >= 1).all() else f"a rank outside 0 to {most}, or a group of no items"


def _beside(record: RunRecord, store: RecordStore) -> Iterator[str]:
    """Whether diagnosis and facts about users can be read and are of this run."""
    diagnoses.find(store, record)
    facts = test_users.find_users(store, record.dataset, record.split_fingerprint)
    if facts is not None and facts.num_rows != record.data["test"]:
        yield f"the facts about its test rows are of {facts.num_rows} rows, not {record.data['test']}"


def _data(record: RunRecord, config: RunConfig, workspace: Workspace, checked: Checked) -> Iterator[str]:
    """Whether data here give the same split and semantic IDs. A folder of somebody's own is not read."""
    if config.dataset.needs_path or config.dataset.missing_files(workspace.data_dir):
        checked.absent.add(record.dataset)
        return
    made = workspace.prepare(config, keep=False)
    checked.compared.add(record.dataset)
    if made.identity["split_fingerprint"] != record.split_fingerprint:
        yield "its split is not the one that the data here give"
    elif not np.array_equal(_users(made.split.test.groups), _users(workspace.store.read_ranks(record).users)):
        yield "the users of its test rows are not those of the split"
    if made.identity.get("semantic_ids_fingerprint") != record.identity.get("semantic_ids_fingerprint"):
        text = "its semantic IDs are not those that are made here"
        if not config.tokenizer.depends_on():
            yield text
        else:  # fitted ones may differ with libraries and processors; such runs stand by themselves
            checked.notes.append(f"{record.path}: {text}; fitted ones may differ between machines")
    elif made.run_id != record.run_id:
        yield f"data and settings give the name {made.run_id} here"


def _users(groups: np.ndarray | None) -> np.ndarray:
    return np.empty(0) if groups is None else groups


def _odd(store: RecordStore, records: list[RunRecord]) -> Iterator[str]:
    """Files that are no part of a record that was read."""
    known = {record.path.with_suffix("") for record in records}
    splits = {str(record.identity.get("split_fingerprint", ""))[:16] for record in records}
    for path in (path for folder in store.folders() for path in sorted(folder.iterdir()) if path.is_file()):
        stem = path.with_name(re.sub(rf"({'|'.join(map(re.escape, BESIDE))}|\.json)$", "", path.name))
        if stem in known or path.name == INDEX or path.name.removesuffix(USERS) in splits:
            continue
        yield f"{path}: belongs to no record that was read"


def _versions(records: list[RunRecord]) -> Iterator[str]:
    """What the runs were made with, a line each combination."""
    def told(facts: dict[str, Any]) -> str:
        return ", ".join(f"{name} {facts[name]}" for name in VERSIONS if name in facts)

    for text, count in sorted(Counter(told(record.provenance) for record in records).items()):
        yield f"made with {text or 'nothing stated'}: {count} of {len(records)} runs"
