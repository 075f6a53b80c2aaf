"""The last items of every user: several test rows a user, so that few users can decide something."""

from __future__ import annotations

from dataclasses import dataclass

from genrec_bench.contracts import Interactions, Split
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import splits
from genrec_bench.core.settings import setting
from genrec_bench.splits.base import SplitRule, first_users, from_the_end


@splits.register("last_n")
@dataclass(frozen=True)
class LastN(SplitRule):
    """A user's last `test_targets` items are a test row each, the `valid_targets` before them validation rows.

    Every history holds the true items before its target, earlier test items included. Training sees nothing from the
    validation rows on. One target of each is leave-one-out.
    """

    test_targets: int = setting(5, "test rows of a user", low=1)
    valid_targets: int = setting(1, "validation rows of a user", low=1)

    @property
    def title(self) -> str:
        """The rule with its two numbers."""
        tests, valids = self.test_targets, self.valid_targets
        return (f"The last {tests} items of a user are a test row each and the {valids} before them validation rows; a "
                "metric is averaged over a user's rows first")

    def split(self, interactions: Interactions) -> Split:
        """Raises: UserError for a user who would have no history, or where nobody has a training row."""
        kept, needed = first_users(interactions, self.max_users), self.test_targets + self.valid_targets + 1
        short = [n for n, s in enumerate(kept.sequences) if len(s) < needed]
        if short:
            raise UserError(f"dataset {kept.name}: user {kept.user_ids[short[0]]!r} has "
                            f"{len(kept.sequences[short[0]])} interactions; split last_n with test_targets = "
                            f"{self.test_targets} and valid_targets = {self.valid_targets} needs at least {needed}.")
        if max(map(len, kept.sequences), default=0) <= needed:
            raise UserError(f"dataset {kept.name}: no user has a training row; it takes a user with at least "
                            f"{needed + 1} interactions.")
        return from_the_end(kept, self, valid=self.valid_targets, test=self.test_targets)
