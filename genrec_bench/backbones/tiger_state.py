"""The search of TIGER: its layers without what training needs, and their keys and values."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.backbones.inference import ROOM, Paths, Rows, Sight, attend, split_heads
from genrec_bench.backbones.layers import fused_weight, rms_norm
from genrec_bench.contracts import PAD


class LeanLayer:
    """The weights of one block fused for inference, those of its norms multiplied in."""

    def __init__(self, block: Any) -> None:
        own, last = block.layer[0], block.layer[-1]
        self.qkv = fused_weight(own.inner.q.weight, own.inner.k.weight, own.inner.v.weight, norm=own.layer_norm.weight)
        self.o = fused_weight(own.inner.o.weight)
        self.wi = fused_weight(last.inner.wi.weight, norm=last.layer_norm.weight)
        self.wo = fused_weight(last.inner.wo.weight)
        if len(block.layer) > 2:
            cross = block.layer[1]
            self.cross_q = fused_weight(cross.inner.q.weight, norm=cross.layer_norm.weight)
            self.cross_o = fused_weight(cross.inner.o.weight)
        self.heads, self.eps = own.inner.heads, own.layer_norm.eps

    def projections(self, x: Tensor) -> Tensor:
        """Queries, keys and values of the self-attention, (3, B, heads, S, d)."""
        return split_heads(F.linear(rms_norm(x, self.eps), self.qkv), 3, self.heads)

    def add_attention(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> None:
        """Self-attention beside the residual x, in place."""
        x += F.linear(attend(query, key, value, bias), self.o)

    def add_cross_attention(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> None:
        """Attention to the history beside the residual x, in place."""
        query = split_heads(F.linear(rms_norm(x, self.eps), self.cross_q), 1, self.heads)[0]
        x += F.linear(attend(query, key, value, bias), self.cross_o)

    def add_feed_forward(self, x: Tensor) -> None:
        """The feed-forward layer beside the residual x, in place."""
        x += F.linear(F.linear(rms_norm(x, self.eps), self.wi).relu_(), self.wo)


class TigerState:
    """A search with the encoder's keys and values computed once a user: prefixes are the queries.

    Keys and values of all prefixes are in the order they were made; a prefix has a bias over its own past.
    """

    def __init__(self, model: Any, histories: Tensor) -> None:
        self.embedding, final = model.shared.weight.detach(), model.decoder.final_layer_norm
        self.heads, self.eps = model.settings.num_heads, final.eps
        self.norm, self.head = final.weight.detach() * model.output_scale, fused_weight(self.embedding)
        self.layers = [LeanLayer(block) for block in model.decoder.block]
        furthest = model.settings.max_distance  # from there on all keys have the same bias
        self.up = model.decoder.position_bias(furthest + 1, 1)[0, :, :, 0].detach()  # (heads, tokens up to the key)
        self.paths = Paths(len(histories), histories.device)
        self.past: list[tuple[Rows, Rows]] = []  # keys and values of the slots, layer by layer
        mask = torch.zeros(histories.shape, device=histories.device).masked_fill(histories == PAD, -torch.inf)
        self.mask = mask[:, None, None]  # (B, 1, 1, S)
        attentions = [block.layer[1].inner for block in model.decoder.block]
        states = rms_norm(self._encode(model, histories), model.encoder.final_layer_norm.eps)
        norm = model.encoder.final_layer_norm.weight
        weights = [fused_weight(a.k.weight, a.v.weight, norm=norm) for a in attentions]
        self.cross = [split_heads(F.linear(states, w), 2, self.heads) for w in weights]  # (2, B, heads, S, d)

    def _encode(self, model: Any, histories: Tensor) -> Tensor:
        """(B, S) token ids -> what the encoder's last block leaves, (B, S, D)."""
        bias = model.encoder.position_bias(histories.shape[1], histories.shape[1]).detach() + self.mask
        x = F.embedding(histories, self.embedding)
        for block in model.encoder.block:
            layer = LeanLayer(block)
            layer.add_attention(x, *layer.projections(x), bias)
            layer.add_feed_forward(x)
        return x

    def first(self) -> Tensor:
        root = self.paths.root()
        return self._step(torch.full_like(root.depths, PAD), root)

    def advance(self, parents: Tensor, tokens: Tensor) -> Tensor:
        return self._step(tokens, self.paths.extend(parents))

    def forget(self, count: int) -> None:
        self.paths.forget(count)
        for rows in itertools.chain(*self.past):
            rows.forget(count)

    def select(self, users: Tensor) -> TigerState:
        chosen = copy.copy(self)
        chosen.mask, chosen.paths = self.mask[users], self.paths.select(users)
        chosen.cross = [part[:, users] for part in self.cross]
        chosen.past = [(key.select(users), value.select(users)) for key, value in self.past]
        return chosen

    def _step(self, tokens: Tensor, sight: Sight) -> Tensor:
        distance = (sight.depths[:, :, None] - sight.key_depths[:, None]).clamp_(0, self.up.shape[1] - 1)
        bias = self.up[:, distance].masked_fill_(~sight.sees, -torch.inf).transpose(0, 1)
        x = F.embedding(tokens, self.embedding)
        for number, layer in enumerate(self.layers):
            query, *own = layer.projections(x)
            if len(self.past) == number:
                self.past.append(tuple(Rows(part[:, :, :0], ROOM) for part in own))
            key, value = (rows.add(part, sight.slots) for rows, part in zip(self.past[number], own, strict=True))
            layer.add_attention(x, query, key, value, bias)
            layer.add_cross_attention(x, *self.cross[number], self.mask)
            layer.add_feed_forward(x)
        return F.linear(rms_norm(x, self.eps) * self.norm, self.head).float()
