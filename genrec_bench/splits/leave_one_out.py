"""Leave-one-out, as APAO's released code does it."""

from __future__ import annotations

from dataclasses import dataclass

from genrec_bench.contracts import Interactions, Split
from genrec_bench.core.registry import splits
from genrec_bench.splits.base import SplitRule, first_users, from_the_end


@splits.register("leave_one_out")
@dataclass(frozen=True)
class LeaveOneOut(SplitRule):
    """A user with items x1..xL gives test (x1..xL-1 -> xL), valid (x1..xL-2 -> xL-1) and, for i = 2..L-2,
    train (x1..xi-1 -> xi); histories keep their newest `max_history` items.
    """

    @property
    def title(self) -> str:
        """The rule."""
        return "Leave-one-out"

    def split(self, interactions: Interactions) -> Split:
        """Raises: UserError for a user who would have no history, or where nobody has a training row."""
        return from_the_end(first_users(interactions, self.max_users), self, valid=1, test=1)
