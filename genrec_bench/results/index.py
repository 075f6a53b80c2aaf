"""The index of a folder of records: one row a run, to see and sort what is there without opening a record."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from genrec_bench.core.errors import UserError
from genrec_bench.core.files import csv_text, write_atomically
from genrec_bench.results import diagnoses
from genrec_bench.results.frame import facts
from genrec_bench.results.records import RecordStore, RunRecord

NAME = "index.csv"
METRICS = ("ndcg@10", "recall@10", "id_ndcg@10")
HEADER = ("run_id", "dataset", "profile", "method", "backbone", "objectives", "seed", "split", *METRICS, "users",
          "device", "threads", "commit", "dirty", "diagnosis", "ranks_sha256")


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
    known = facts(record)
    row = {**known, **{name: record.metrics.get(name) for name in METRICS}, "method": known["label"],
           "objectives": known["objective"], "dirty": _word(known.get("dirty")),
           "diagnosis": _word(diagnoses.path_of(store, record).exists()),
           "ranks_sha256": hashlib.sha256(store.ranks_bytes(record)).hexdigest()}
    return {name: row.get(name) for name in HEADER}


def _word(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()
