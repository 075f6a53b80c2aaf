"""Whether data are sound: every file is read and checked, and the split is made and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import Interactions, Split
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import datasets, splits
from genrec_bench.datasets.base import Dataset, dataset_specs
from genrec_bench.datasets.causes import alike
from genrec_bench.splits.base import summary
from genrec_bench.splits.order import order_facts, order_sentences


def check_data(dataset: Dataset, data_dir: Path | None) -> dict[str, Any]:
    """Read a dataset with all checks of its files, and split it.

    Gives plain data: "counts" (users, items, interactions, train, valid, test, distinct_semantic_ids; None where there
    are no semantic IDs) and "notes", sentences on the order of interactions, on windows that the data bring with them
    and on ids that look alike.
    Raises: UserError naming the file and the item, user or code.
    """
    interactions = dataset.load(data_dir)
    split = splits.build({"name": dataset.default_split}).split(interactions)
    return {"counts": summary(split, _distinct(interactions)),
            "notes": [*order_sentences(order_facts(split)), *_windows(split), *_alike(interactions)]}


def chosen_datasets(names: Sequence[str] | None, changed: Mapping[str, Mapping[str, Any]]) -> list[Dataset]:
    """The datasets named, as `--datasets` takes them, or for None all that need no folder of the user's.

    changed: settings by dataset. Raises: UserError for an unknown name or setting.
    """
    if names is None:
        names = [name for name in datasets.names() if not datasets.get(name).needs_path]
    return [datasets.build(spec) for spec in dataset_specs(names, changed)]


def present_datasets(chosen: Sequence[Dataset], data_dir: Path | None) -> list[Dataset]:
    """Those whose files are there. Raises: UserError where there is none."""
    present = [d for d in chosen if not d.missing_files(data_dir)]
    if not present:
        raise UserError("no dataset is present. `data fetch` says where to get them.")
    return present


def labelled(chosen: Sequence[Dataset]) -> list[tuple[str, Dataset]]:
    """Each dataset with what to call it: two folders with the same name are told apart by their paths."""
    labels = [d.title for d in chosen]
    return [(d.location(None) if labels.count(label) > 1 and d.needs_path else label, d)
            for d, label in zip(chosen, labels, strict=True)]


def _distinct(interactions: Interactions) -> int | None:
    codes = interactions.given_codes
    return None if codes is None else len(np.unique(codes, axis=0))


def _windows(split: Split) -> list[str]:
    """What the windows of the data hold, in a sentence each; none for data without."""
    given, train, test = split.interactions.rows, split.train, split.test
    if given is None:
        return []
    counts = ", ".join(f"{len(rows):,} {part} windows of {len(np.unique(rows.users)):,} users"
                       for part, rows in given.items())
    known = np.isin(test.targets, np.concatenate([train.targets, *train.histories.blocks()]))
    fresh = ~np.isin(test.users, train.users)
    occurring = len(np.unique(split.interactions.sequences.flat))
    told = [f"The data bring {counts}; {split.interactions.num_users:,} users and {occurring:,} of "
            f"{split.num_items:,} items occur.",
            f"Of {len(test):,} test targets {known.sum():,} are warm and {(~known).sum():,} cold (in no training row, "
            f"as target or in a history); {fresh.sum():,} test rows are of users without a training row."]
    if "valid" not in given:
        told.append(f"The data bring no validation windows: {len(split.valid):,} were taken from the "
                    f"{len(given['train']):,} training windows.")
    if test.same_day is not None:
        told.append(f"Of {(test.same_day >= 0).sum():,} test targets it is known whether they have the day of the item "
                    f"before: {(test.same_day == 1).sum():,} have.")
    return told


def _alike(interactions: Interactions) -> list[str]:
    """A sentence for each kind of id of which some differ only in their form, such as by blanks."""
    kinds = {"users": interactions.user_ids, "items": interactions.item_ids}
    return [f"{kind.capitalize()} {' and '.join(map(form.shown, pairs[0]))} differ only by {form.differ} and are two "
            f"({len(pairs)} such {kind})." for kind, ids in kinds.items() for form, pairs in alike(ids)]
