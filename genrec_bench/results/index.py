"""The index of a folder of records: one row a run, to see and sort what is there without opening a record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrec_bench.core.errors import UserError
from genrec_bench.core.files import csv_text, write_atomically
from genrec_bench.results import diagnoses
from genrec_bench.results.records import RecordStore, RunRecord

NAME = "index.csv"
METRICS = ("ndcg@10", "recall@10", "id_ndcg@10")
HEADER = ("run_id", "dataset", "profile", "method", "backbone", "objectives", "seed", "split", *METRICS, "users",
          "device", "threads", "commit", "dirty", "diagnosis", "ranks_sha256")


def described(record: RunRecord) -> dict[str, Any]:
    """What a run is, in the columns that tables of runs begin with.

    backbone, objectives: registered names, None for a baseline; objectives are joined by " + ", stages by " > ".
    """
    config = record.config
    stages = [record.first_stage.get("objectives", ()), config.get("objectives", ())]
    names = " > ".join(" + ".join(spec["name"] for spec in specs) for specs in stages if specs)
    return {"run_id": record.run_id, "dataset": record.dataset, "profile": record.profile, "method": record.label,
            "backbone": (config.get("backbone") or {}).get("name"), "objectives": names or None, "seed": record.seed}


def index_text(store: RecordStore) -> str:
    """The index as CSV, sorted by dataset, profile, method, seed and name; equal records give equal bytes.

    Trials are left out. split: first 16 digits of its fingerprint. users: of the test rows. dirty: whether the code
    differed from its commit. diagnosis: whether there is one. ranks_sha256: of the file of ranks. What a record does
    not state is an empty cell.
    """
    rows = [_row(record, store) for record in store.read_all() if not record.is_trial]
    rows.sort(key=lambda row: [row[name] for name in ("dataset", "profile", "method", "seed", "run_id")])
    return csv_text(HEADER, [list(row.values()) for row in rows])


def write_index(store: RecordStore) -> Path:
    """Write `index.csv` below the store's root; a file that says the same stays. Raises: UserError without records."""
    path, text = store.root / NAME, index_text(store)
    if text == csv_text(HEADER, []):
        raise UserError(f"no records below {store.root} to write an index of.")
    data = text.encode()
    if not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)
    return path


def _row(record: RunRecord, store: RecordStore) -> dict[str, Any]:
    about: Mapping[str, Any] = record.provenance
    row = {**described(record), "split": record.split_fingerprint[:16] or None,
           **{name: record.metrics.get(name) for name in METRICS}, "users": _users(record),
           **{name: about.get(name) for name in ("device", "threads", "commit")}, "dirty": _word(about.get("dirty")),
           "diagnosis": _word(diagnoses.path_of(store, record).exists()),
           "ranks_sha256": hashlib.sha256(store.ranks_bytes(record)).hexdigest()}
    return {name: row[name] for name in HEADER}


def _users(record: RunRecord) -> int | None:
    return (record.data.get("order") or {}).get("users", record.data.get("test"))


def _word(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()
