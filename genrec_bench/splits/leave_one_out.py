"""Leave-one-out, as APAO's released code does it."""

from __future__ import annotations

from dataclasses import dataclass

from genrec_bench.contracts import MIN_INTERACTIONS, Interactions, Split
from genrec_bench.core.errors import UserError
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
        """Raises: UserError for a user with fewer than 3 interactions, or where nobody has a training row."""
        kept = first_users(interactions, self.max_users)
        short = [n for n, s in enumerate(kept.sequences) if len(s) < MIN_INTERACTIONS]
        if short:
            raise UserError(f"dataset {kept.name}: user {kept.user_ids[short[0]]!r} has "
                            f"{len(kept.sequences[short[0]])} interactions; leave-one-out needs at least "
                            f"{MIN_INTERACTIONS}.")
        if max(map(len, kept.sequences), default=0) <= MIN_INTERACTIONS:
            raise UserError(f"dataset {kept.name}: no user has a training row; it takes a user with at least "
                            f"{MIN_INTERACTIONS + 1} interactions.")
        return from_the_end(kept, self, valid=1, test=1)
