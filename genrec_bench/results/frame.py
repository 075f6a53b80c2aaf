"""Finished runs as pandas frames: a line a run, a line a metric of a run, a line a test row of a run.

Reports and exports are made from these; docs/records.md says what each column holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from genrec_bench.core.errors import UserError
from genrec_bench.core.lazy import pandas
from genrec_bench.results.records import RANKS, RecordStore, RunRecord
from genrec_bench.results.test_users import ARRAYS, UserFacts

if TYPE_CHECKING:
    from pandas import DataFrame

SAME_TIME = ("cpu", "device", "threads", "commit")  # what runs have in common whose times are compared
PASSES = ("histories_with_gradient", "histories_without_gradient", "positions_with_gradient",
          "positions_without_gradient")
KEY = {"run_id": "str", "dataset": "str", "profile": "str", "method": "str", "label": "str", "backbone": "str",
       "objective": "str", "baseline": "str", "seed": "Int64", "trial": "boolean"}
COUNTS = {"data_users": "users", "items": "items", "interactions": "interactions", "train_rows": "train",
          "valid_rows": "valid", "test_rows": "test", "distinct_semantic_ids": "distinct_semantic_ids"}  # in `data`
FACTS = {"split": "str", "semantic_ids": "str", **dict.fromkeys((*COUNTS, "users"), "Int64"), "parameters": "Int64",
         "epochs": "Int64", "best_epoch": "Int64", "stopped": "str", "first_stage_epochs": "Int64",
         "first_stage_best_epoch": "Int64", "steps": "Int64", "first_stage_steps": "Int64",
         **dict.fromkeys(PASSES, "Int64"), "seconds_per_epoch": "float64", "train_seconds": "float64",
         "first_stage_seconds": "float64", "first_stage_share": "float64", "total_seconds": "float64",
         "decode_users_per_second": "float64", "peak_memory_bytes": "float64", "prefix_weights": "str",
         "device": "str", "threads": "Int64", "cpu": "str", "platform": "str", "python": "str", "torch": "str",
         "numpy": "str", "recbole": "str", "genrec_bench": "str", "commit": "str", "dirty": "boolean"}
RUN = KEY | FACTS
METRIC = {"part": "str", "history": "str", "level": "str", "metric": "str", "k": "Int64", "value": "float64"}
RANKED = tuple(f"{prefix}{name}" for prefix in ("", "unseen_") for name in ("rank", "ties", "id_rank"))
USER = {"run_id": "str", "row": "int64", **dict.fromkeys(("user", *RANKED, *ARRAYS), "Int64")}
NAME = re.compile(r"(?:(valid|unseen)_)?(id_)?(.+?)(?:@(\d+))?")  # of a metric in a record


def runs(records: Iterable[RunRecord]) -> DataFrame:
    """A line a run with the columns RUN, in the order of the records; what a record does not state is missing."""
    return _typed([facts(record) for record in records], RUN)


def frame(records: Iterable[RunRecord]) -> DataFrame:
    """A line a metric of a run, unrounded, with the columns KEY and METRIC; metrics of a run in order of their names.

    "valid_id_ndcg@10" of a record is part valid, history kept, level id, metric ndcg, k 10.
    """
    lines = []
    for record in records:
        key = [facts(record)[name] for name in KEY]
        lines += [(*key, *parsed(name), value) for name, value in sorted(record.metrics.items())]
    return _typed(lines, KEY | METRIC)


def users(store: RecordStore, record: RunRecord, about: UserFacts | None) -> DataFrame:
    """A line a test row of one run, in split order, with the columns USER; about: what is known of the rows, or None.

    Raises: UserError where ranks and facts are of other numbers of rows.
    """
    kept, unseen = store.read_ranks(record), store.read_ranks(record, unseen=True)
    count = len(kept.ranks)
    if about is not None and about.num_rows != count:
        raise UserError(f"run {record.run_id} has ranks of {count} rows, the facts about its split of "
                        f"{about.num_rows}. One of the two files is not of this split: delete it.")
    known = {name: None if about is None else getattr(about, name) for name in ARRAYS}
    arrays = [getattr(part, name) for part in (kept, unseen) for name in RANKS]
    columns = {"run_id": record.run_id, "row": range(count), **dict(zip(RANKED, arrays, strict=True)), **known}
    columns["user"] = kept.users if about is None else about.user
    return pandas.DataFrame(columns)[list(USER)].astype(USER)


def facts(record: RunRecord) -> dict[str, Any]:
    """The columns RUN of one run; None for what it does not state."""
    config, training, timings = record.config, record.training, record.timings
    first, stages = training.get("first_stage") or {}, [record.first_stage.get("objectives", ()),
                                                        config.get("objectives", ())]
    before, seconds = timings.get("first_stage_seconds"), timings.get("train_seconds")
    total = None if seconds is None else seconds + (before or 0.0)
    return {
        "run_id": record.run_id, "dataset": record.dataset, "profile": record.profile, "method": record.method,
        "label": record.label, "backbone": (config.get("backbone") or {}).get("name"),
        "objective": " > ".join(" + ".join(spec["name"] for spec in specs) for specs in stages if specs) or None,
        "baseline": (config.get("baseline") or {}).get("name"), "seed": record.seed, "trial": record.is_trial,
        "split": record.identity.get("split_fingerprint", "")[:16] or None,
        "semantic_ids": record.identity.get("semantic_ids_fingerprint", "")[:16] or None,
        "users": (record.data.get("order") or {}).get("users", record.data.get("test")),
        **{name: record.data.get(key) for name, key in COUNTS.items()},
        **{name: training.get(name) for name in ("parameters", "epochs", "best_epoch", "stopped")},
        **{f"first_stage_{name}": first.get(name) for name in ("epochs", "best_epoch", "steps")},
        "steps": _of_all_stages(record, lambda stage: stage.get("steps")),
        **{name: _of_all_stages(record, lambda stage, name=name: (stage.get("passes") or {}).get(name))
           for name in PASSES},
        **{name: timings.get(name) for name in ("seconds_per_epoch", "total_seconds", "decode_users_per_second",
                                                "peak_memory_bytes")},
        "train_seconds": total, "first_stage_seconds": before,
        "first_stage_share": before / total if before is not None and total else None,
        "prefix_weights": _prefix_weights(training.get("curve") or ()),
        **{name: record.provenance.get(name) for name in FACTS if name in record.provenance}}


def parsed(name: str) -> tuple[str, str, str, str, int | None]:
    """The name of a metric in a record as part, history, level, metric and k."""
    side, by_id, metric, k = NAME.fullmatch(name).groups()
    return ("valid" if side == "valid" else "test", "unseen" if side == "unseen" else "kept",
            "id" if by_id else "item", metric, int(k) if k else None)


def _of_all_stages(record: RunRecord, read: Any) -> float | None:
    """A number about training summed over the stages; None where some stage does not state it."""
    stages = [record.training, *([record.training.get("first_stage") or {}] if record.first_stage else [])]
    values = [read(stage) for stage in stages]
    return None if None in values else sum(values)


def _prefix_weights(curve: Iterable[dict[str, Any]]) -> str | None:
    """The weights of prefix lengths after the last epoch, one after the other; of APAO alone."""
    last = next((entry["state"] for entry in reversed(list(curve)) if "apao.weights" in entry.get("state", {})), None)
    return " ".join(map(repr, last["apao.weights"])) if last else None


def _typed(lines: list[Any], columns: dict[str, str]) -> DataFrame:
    return pandas.DataFrame(lines, columns=list(columns)).astype(columns)
