"""A split of your own in one file: users are divided, so that nobody who is tested was trained on."""

from dataclasses import dataclass, replace

import numpy as np

from genrec_bench.contracts import Interactions, Split
from genrec_bench.core.registry import splits
from genrec_bench.core.settings import setting
from genrec_bench.splits.base import SplitRule, first_users, from_the_end


@splits.register("new_users")
@dataclass(frozen=True)
class NewUsers(SplitRule):
    """Every `every`-th user is tested on the last item and validated on the one before; only the others train."""

    every: int = setting(3, "one user of so many is tested", low=2)

    @property
    def title(self) -> str:
        return f"Users who were never trained on: one of {self.every} is tested"

    def split(self, interactions: Interactions) -> Split:
        whole = from_the_end(first_users(interactions, self.max_users), self, valid=1, test=1)
        tested = np.arange(whole.interactions.num_users) % self.every == 0
        sequences = tuple(s[:0] if out else s for s, out in zip(whole.train_sequences, tested, strict=True))
        return replace(whole, train=whole.train.where(~tested[whole.train.users]), train_sequences=sequences,
                       valid=whole.valid.where(tested), test=whole.test.where(tested))
