"""What every backbone offers: teacher-forced logits, and where it can a cheaper step for decoding."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from genrec_bench.backbones.folding import PrefixTree, prefix_tree


class DecodingState(Protocol):
    """One batch of users in the middle of a beam search; beams share what belongs to the user."""

    def first(self) -> Tensor:
        """Logits of the first token, (B, 1, V) float32."""

    def advance(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Continue beam `parents[b, k]` of the last step with `tokens[b, k]`; both (B, K). Returns (B, K, V)."""


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

    def num_parameters(self) -> int:
        """Trainable numbers, shared ones counted once."""
        return sum(p.numel() for p in self.parameters())


class BackboneSettings:
    """Base of backbone plug-ins: frozen dataclasses with `build(vocab_size, seed) -> Backbone`.

    `check` is asked while runs are planned, before any of them starts.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    def check(self) -> None:
        """Refuse settings that do not fit each other. Raises: UserError."""

    def check_length(self, tokens: int) -> None:
        """Refuse sequences (history, its suffix and one semantic ID) of this many tokens. Raises: DoesNotFit."""

    def build(self, vocab_size: int, seed: int) -> Backbone:
        """A freshly initialised network; the weights depend on nothing but the settings and `seed`."""
        raise TypeError(f"{type(self).__name__} must define build")


class PrefixState:
    """Decoding with nothing but `token_logits`: every step scores the whole prefixes again."""

    def __init__(self, backbone: Any, histories: Tensor) -> None:
        self.backbone, self.histories = backbone, histories
        self.prefixes = torch.empty(len(histories), 1, 0, dtype=torch.long, device=histories.device)

    def first(self) -> Tensor:
        return self._last_logits()

    def advance(self, parents: Tensor, tokens: Tensor) -> Tensor:
        index = parents[:, :, None].expand(-1, -1, self.prefixes.shape[2])
        self.prefixes = torch.cat([self.prefixes.gather(1, index), tokens[:, :, None]], dim=2)
        return self._last_logits()

    def _last_logits(self) -> Tensor:
        # the last row of a candidate does not depend on its last token, so any token serves
        candidates = torch.cat([self.prefixes, self.prefixes.new_zeros(*self.prefixes.shape[:2], 1)], dim=2)
        return self.backbone.token_logits(self.histories, candidates)[:, :, -1]
