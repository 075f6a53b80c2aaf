"""The windows that data bring with them: who made the data says what trains, validates and tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from genrec_bench.contracts import Instances, Interactions, Split
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import splits
from genrec_bench.core.settings import setting
from genrec_bench.splits.base import SplitRule, first_users, newest_items


@splits.register("windows")
@dataclass(frozen=True)
class Windows(SplitRule):
    """The rows of `Interactions.rows`: a user may have several in a part, or none.

    A training sequence is what the user's kept training rows hold, merged where they overlap.
    """

    valid_share: float = setting(0.1, "share of the training rows, last in time, that validate where the data bring no "
                                 "validation rows", low=0.01, high=0.5)

    @property
    def title(self) -> str:
        """The rule; `order_facts` says where training rows validate."""
        return "Windows as the data give them"

    def split(self, interactions: Interactions) -> Split:
        """Raises: UserError for data without rows of their own, or where a part is left without any."""
        kept = first_users(interactions, self.max_users)
        if kept.rows is None:
            raise UserError(f"dataset {kept.name} brings no windows of its own: use split leave_one_out or last_n.")
        train, test = kept.rows["train"], kept.rows["test"]
        train, valid = (train, kept.rows["valid"]) if "valid" in kept.rows else self._last_in_time(kept.name, train)
        for part, rows in (("train", train), ("valid", valid), ("test", test)):
            if not len(rows):
                raise UserError(f"dataset {kept.name}: no {part} windows are left of {kept.num_users} users; every "
                                f"part needs one. Raise split.max_users = {self.max_users}, or set it to 0 for all.")
        train = newest_items(self._newest_rows(train), self.max_history)
        valid, test = (newest_items(_with_seen(rows), self.max_history) for rows in (valid, test))
        return Split(kept, train, valid, test, train.merged(kept.num_users)[0])

    def _last_in_time(self, name: str, train: Instances) -> tuple[Instances, Instances]:
        if train.order is None:
            raise UserError(f"dataset {name} brings neither validation windows nor the order of its training windows "
                            "in time: use split leave_one_out or last_n.")
        late = np.zeros(len(train), dtype=bool)
        late[np.argsort(train.order)[len(train) - max(1, int(self.valid_share * len(train))):]] = True
        return train.where(~late), train.where(late)

    def _newest_rows(self, train: Instances) -> Instances:
        from_the_end = np.searchsorted(train.users, train.users, side="right") - np.arange(len(train))
        return train.where(from_the_end <= (self.train_targets_per_user or len(train)))


def _with_seen(rows: Instances) -> Instances:
    """Rows that say what their user had before the target: the whole history where the data say nothing else."""
    if rows.seen is not None:
        return rows
    return replace(rows, seen=rows.histories)
