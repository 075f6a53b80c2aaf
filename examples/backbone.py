"""A backbone of your own in one file: a GRU reads the history, then the tokens of a semantic ID."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genrec_bench.backbones.base import Backbone
from genrec_bench.backbones.settings import BackboneSettings
from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.registry import backbones
from genrec_bench.core.settings import setting


class Network(Backbone):
    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(vocab_size, width), nn.Linear(width, vocab_size)
        self.gru = nn.GRU(width, width, batch_first=True)

    def token_logits(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """(B, S) and (B, C, T) token ids to (B, C, T, V); row t has read the tokens before t."""
        states = self.gru(self.embedding(histories))[0]
        user = states[torch.arange(len(histories)), (histories != PAD).sum(dim=1) - 1]
        before = nn.functional.pad(candidates[:, :, :-1], (1, 0), value=EOS).flatten(0, 1)
        read = self.gru(self.embedding(before), user.repeat_interleave(candidates.shape[1], dim=0)[None])[0]
        return self.output(read).unflatten(0, candidates.shape[:2])


@backbones.register("gru")
@dataclass(frozen=True)
class GRU(BackboneSettings):
    """One layer that reads a user's history and then each candidate."""

    width: int = setting(32, "width of embeddings and states", low=1)

    def build(self, vocab_size: int, seed: int) -> Backbone:
        with torch.random.fork_rng(devices=[]):  # the weights depend on nothing but settings and seed
            torch.manual_seed(seed)
            return Network(vocab_size, self.width)
