"""The last items of every user: several test rows a user, so that few users can decide something."""

from __future__ import annotations

from dataclasses import dataclass

from genrec_bench.contracts import Interactions, Split
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
        kept = first_users(interactions, self.max_users)
        return from_the_end(kept, self, valid=self.valid_targets, test=self.test_targets)
