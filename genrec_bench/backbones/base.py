"""What every backbone offers: teacher-forced logits, and where it can a cheaper step for decoding."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrec_bench.backbones.folding import PrefixTree, prefix_tree
from genrec_bench.contracts import PAD


class DecodingState(Protocol):
    """One batch of users in the middle of a search; prefixes share what belongs to the user.

    Every prefix that was read has a slot, numbered for each user from 0 (the empty prefix) in the order of reading.
    """

    def first(self) -> Tensor:
        """Read the empty prefix. Logits of the first token, (B, 1, V) float32."""

    def advance(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Read the prefixes in slots `parents` with one token more, into the K slots that come next.

        parents: (B, K) slots of any earlier step, of whatever length. tokens: (B, K). Returns (B, K, V) float32.
        """

    def select(self, users: Tensor) -> DecodingState:
        """The same search for some of the users alone: (U,) distinct rows of the batch."""

    def forget(self, count: int) -> None:
        """Nothing goes on from the last `count` slots: what is read next has their numbers.

        An exact search says so of most prefixes that it reads. It asks for nothing where a state lacks this.
        """


class Backbone(nn.Module):
    """A network from token ids to logits over the flat vocabulary.

    A network defines `node_logits`, or `token_logits` where it cannot fold candidates. `history_suffix` are the token
    ids that close a history (an encoder-decoder wants EOS); whoever makes histories appends them. `packs_users` says
    that one pass can serve several instances of a user, see `packed_logits`. A backbone plug-in is a frozen dataclass
    of settings whose `build` makes this module.
    """

    history_suffix: tuple[int, ...] = ()
    packs_users: bool = False

    def node_logits(self, histories: Tensor, tree: PrefixTree) -> Tensor:
        """Logits after every distinct prefix of a user's candidates.

        histories: (B, S) token ids, PAD at the end. tree: P columns a user. Returns (B, P, V) float32; a row depends
        on the tokens of its own prefix only, and means nothing in columns that fill up a level.
        """
        raise TypeError(f"{type(self).__name__} must define node_logits, or at least token_logits")

    def token_logits(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Teacher-forced logits of C candidate semantic IDs a user.

        histories: (B, S) token ids, PAD at the end. candidates: (B, C, T) token ids, PAD read as any other. Returns
        (B, C, T, V) float32; row t depends on the tokens before t only.
        """
        tree = prefix_tree(candidates, skip_pad=False)
        return tree.gather(self.node_logits(histories, tree))

    def packed_logits(self, sequences: Tensor, sequence: Tensor, length: Tensor, depth: int) -> Tensor:
        """`token_logits` of B instances, one candidate each, that are pieces of G longer sequences.

        sequences: (G, S) token ids, PAD at the end: history and target of a user's longest instance. sequence: (B,)
        its row for each instance. length: (B,) tokens of the instance's history, from 1; the tokens of its target
        follow. depth: levels T. Returns (B, T, V) float32; rows behind the end of a sequence mean nothing. Only where
        `packs_users`.
        """
        raise TypeError(f"{type(self).__name__} has no packed_logits")

    def start(self, histories: Tensor) -> DecodingState:
        """Begin decoding for (B, S) histories; the default asks `token_logits` for whole prefixes."""
        return PrefixState(self, histories)

    def decoding_floats(self, history: int, beams: int, depth: int) -> int:
        """Numbers that decoding holds for one user at most; the default guesses them from the widest matrix.

        history: tokens. beams, depth: width and levels of the search.
        """
        widest = max((size for p in self.parameters() for size in p.shape), default=1)
        positions = history + beams * depth
        return 8 * positions * (widest + positions)

    def num_parameters(self) -> int:
        """Trainable numbers, shared ones counted once."""
        return sum(p.numel() for p in self.parameters())


class PrefixState:
    """Decoding with nothing but `token_logits`: every step scores the whole prefixes again."""

    def __init__(self, backbone: Any, histories: Tensor) -> None:
        self.backbone, self.histories = backbone, histories
        self.prefixes = torch.empty(len(histories), 1, 0, dtype=torch.long, device=histories.device)  # (B, slots, m)
        self.lengths = torch.zeros(len(histories), 1, dtype=torch.long, device=histories.device)
        self.rows = torch.arange(len(histories), device=histories.device)  # (U,) users of the search in the batch

    def first(self) -> Tensor:
        return self._next_logits(self.prefixes, self.lengths)

    def advance(self, parents: Tensor, tokens: Tensor) -> Tensor:
        lengths = self.lengths.gather(1, parents)
        prefixes = self.prefixes.gather(1, parents[:, :, None].expand(-1, -1, self.prefixes.shape[2]))
        longest = int(lengths.max()) + 1
        if longest > self.prefixes.shape[2]:
            prefixes, self.prefixes = (F.pad(p, (0, 1), value=PAD) for p in (prefixes, self.prefixes))
        prefixes = prefixes.scatter(2, lengths[:, :, None], tokens[:, :, None])
        self.prefixes = torch.cat([self.prefixes, prefixes], dim=1)
        self.lengths = torch.cat([self.lengths, lengths + 1], dim=1)
        return self._next_logits(prefixes[:, :, :longest], lengths + 1)

    def select(self, users: Tensor) -> PrefixState:
        chosen = PrefixState(self.backbone, self.histories)
        chosen.prefixes, chosen.lengths = self.prefixes[users], self.lengths[users]
        chosen.rows = self.rows[users]
        return chosen

    def forget(self, count: int) -> None:
        slots = self.prefixes.shape[1] - count
        self.prefixes, self.lengths = self.prefixes[:, :slots], self.lengths[:, :slots]

    def _next_logits(self, prefixes: Tensor, lengths: Tensor) -> Tensor:
        """Logits behind (U, K, m) prefixes of (U, K) lengths, by questions of one length about the whole batch.

        Each question takes only the entries of its length. In the place of every other entry (users who are no longer
        selected, prefixes of another length) it takes one of those, so that only prefixes of the search are scored.
        """
        result = None
        for length in lengths.unique().tolist():
            asked = lengths == length
            user, column = asked.nonzero()[0]
            candidates = prefixes[user, column, :length].expand(len(self.histories), lengths.shape[1], -1).clone()
            candidates[self.rows] = torch.where(asked[:, :, None], prefixes[:, :, :length], candidates[self.rows])
            # the last row of a candidate does not depend on its last token, so any token serves
            logits = self.backbone.token_logits(self.histories, F.pad(candidates, (0, 1)))[self.rows, :, -1]
            result = logits if result is None else torch.where(asked[:, :, None], logits, result)
        return result
