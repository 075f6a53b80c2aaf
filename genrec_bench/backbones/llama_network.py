"""The network of Llama: a decoder that reads the codes of history and next item as one sequence.

Touvron et al. 2023, arXiv 2302.13971; sizes of APAO (arXiv 2603.02730, App. C and its released configuration).
Parameter names are those of Hugging Face `LlamaForCausalLM`, so that weights load both ways.
Differs from the paper: histories are padded on the right and counted from position 0, where APAO pads on the left;
rotary positions are relative, so that the logits are the same.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrec_bench.backbones.base import Backbone
from genrec_bench.backbones.folding import PrefixTree
from genrec_bench.backbones.huggingface import LEVELS, check_class, check_logits, check_settings, copy_weights
from genrec_bench.backbones.inference import (
    ROOM,
    Paths,
    Rows,
    Sight,
    attend,
    search_floats,
    split_heads,
)
from genrec_bench.backbones.layers import fused_weight, rms_norm, scaled_attention
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.errors import UserError

KeysValues = tuple[Tensor, Tensor]  # of one layer, each (B, heads, positions, d)


def build(settings: LlamaSettings, vocab_size: int, seed: int) -> Llama:
    """A freshly initialised network."""
    model = Llama(settings, vocab_size)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def rotary(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles: (B, S) -> two (B, 1, S, width), equal for all heads."""
    frequencies = 1.0 / theta ** (torch.arange(0, width, 2, device=positions.device).float() / width)
    angles = (positions[:, None, :, None] * frequencies).repeat(1, 1, 1, 2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs (i, i + d / 2) of (B, heads, S, d) by their position's angles."""
    first, second = x.chunk(2, dim=3)
    return x * turn[0] + torch.cat([-second, first], dim=3) * turn[1]


class Attention(nn.Module):
    """The four matrices of attention."""

    def __init__(self, settings: LlamaSettings) -> None:
        super().__init__()
        inner = settings.num_heads * settings.head_width
        self.heads = settings.num_heads
        self.q_proj = nn.Linear(settings.width, inner, bias=False)
        self.k_proj = nn.Linear(settings.width, inner, bias=False)
        self.v_proj = nn.Linear(settings.width, inner, bias=False)
        self.o_proj = nn.Linear(inner, settings.width, bias=False)

    def project(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, D) -> queries, keys and values, each (B, heads, S, d), positions turned in."""
        query, key, value = (f(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
                             for f in (self.q_proj, self.k_proj, self.v_proj))
        return rotate(query, turn), rotate(key, turn), value


class FeedForward(nn.Module):
    """SwiGLU: silu(gate) * up, then down."""

    def __init__(self, settings: LlamaSettings) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(settings.width, settings.feed_forward_width, bias=False)
        self.up_proj = nn.Linear(settings.width, settings.feed_forward_width, bias=False)
        self.down_proj = nn.Linear(settings.feed_forward_width, settings.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, settings: LlamaSettings) -> None:
        super().__init__()
        self.self_attn = Attention(settings)
        self.mlp = FeedForward(settings)
        self.input_layernorm = nn.RMSNorm(settings.width, settings.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(settings.width, settings.norm_eps)

    def project(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        return self.self_attn.project(self.input_layernorm(x), turn)

    def forward(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, sees: Tensor | None) -> Tensor:
        """sees: (B, queries, keys) bool, None = each sees itself and what is before it."""
        mask = None if sees is None else sees[:, None]
        mixed = scaled_attention(query, key, value, mask)
        x = x + self.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, settings: LlamaSettings, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, settings.width)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.num_layers))
        self.norm = nn.RMSNorm(settings.width, settings.norm_eps)


@dataclass(frozen=True)
class History:
    """What a batch of histories leaves: all but the last token as keys and values, the last still to be read.

    past: keys and values of every layer over all S columns. sees: (B, 1, S) bool: columns before the last token.
    last: (B, 1) last token, PAD where a history is empty. position: (B, 1) its position.
    """

    past: list[KeysValues]
    sees: Tensor
    last: Tensor
    position: Tensor


class Llama(Backbone):
    """The network. The last token of a history is the root of the candidates' tree: its logits are the first level's.

    So nobody reads an output of the tokens before it, and an empty history needs no case of its own: its root is PAD
    at position 0, which sees nothing but itself.
    """

    packs_users = True

    def __init__(self, settings: LlamaSettings, vocab_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.model = Decoder(settings, vocab_size)

    def initialise(self, generator: torch.Generator) -> None:
        """Hugging Face's initial weights: every matrix normal with deviation 0.02, norms 1."""
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() == 2:
                    parameter.normal_(0.0, 0.02, generator=generator)

    def forward_layers(self, tokens: Tensor, positions: Tensor, past: Sequence[KeysValues] | None = None,
                       sees: Tensor | None = None, *, outputs: bool = True) -> tuple[Tensor, list[KeysValues]]:
        """(B, P) tokens at (B, P) positions -> hidden states (B, P, D), and keys and values with the past before them.

        sees: (B, P, past + P) bool, None = causal. Without `outputs` the last layer stops at its keys and values.
        """
        x, kept = self.model.embed_tokens(tokens), []
        turn = rotary(positions, self.settings.head_width, self.settings.rope_theta)
        for number, layer in enumerate(self.model.layers):
            query, key, value = layer.project(x, turn)
            if past is not None:
                key, value = (torch.cat(pair, dim=2) for pair in zip(past[number], (key, value), strict=True))
            kept.append((key, value))
            if outputs or number + 1 < len(self.model.layers):
                x = layer(x, query, key, value, sees)
        return x, kept

    def logits(self, x: Tensor) -> Tensor:
        """(..., D) hidden states -> (..., V) logits, float32."""
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight).float()

    def read(self, histories: Tensor) -> History:
        """(B, S) token ids, PAD at the end, read once a user."""
        if not histories.shape[1]:
            histories = F.pad(histories, (0, 1), value=PAD)
        position = ((histories != PAD).sum(1, keepdim=True) - 1).clamp(min=0)
        columns = torch.arange(histories.shape[1], device=histories.device)
        _, past = self.forward_layers(histories, columns[None], outputs=False)
        return History(past, columns < position[:, :, None], histories.gather(1, position), position)

    def node_logits(self, histories: Tensor, tree: PrefixTree) -> Tensor:
        self.settings.check_length(histories.shape[1] + len(tree.widths) - 1)
        history = self.read(histories)
        tokens = torch.cat([history.last, tree.tokens[:, 1:]], dim=1)
        sees = torch.cat([history.sees.expand(-1, tokens.shape[1], -1), tree.sees], dim=2)
        return self.logits(self.forward_layers(tokens, history.position + tree.depths, history.past, sees)[0])

    def packed_logits(self, sequences: Tensor, sequence: Tensor, length: Tensor, depth: int) -> Tensor:
        columns = sequences.shape[1]
        self.settings.check_length(columns)
        x, _ = self.forward_layers(sequences, torch.arange(columns, device=sequences.device)[None])
        rows = (length[:, None] - 1 + torch.arange(depth, device=length.device)).clamp(max=columns - 1)
        # an embedding: its gradient adds whole rows, far faster than that of an index
        return self.logits(F.embedding(sequence[:, None] * columns + rows, x.flatten(0, 1)))

    def start(self, histories: Tensor) -> LlamaState:
        return LlamaState(self, histories)

    def decoding_floats(self, history: int, beams: int, depth: int) -> int:
        s = self.settings
        return search_floats(history, beams, depth, width=s.width, inner=s.num_heads * s.head_width, heads=s.num_heads,
                             feed_forward=s.feed_forward_width, layers=s.num_layers,
                             vocab=len(self.model.embed_tokens.weight))


class LeanLayer:
    """The weights of one layer fused for inference, those of its norms multiplied in."""

    def __init__(self, layer: Layer) -> None:
        own, feed = layer.self_attn, layer.mlp
        self.qkv = fused_weight(own.q_proj.weight, own.k_proj.weight, own.v_proj.weight,
                                norm=layer.input_layernorm.weight)
        self.o = fused_weight(own.o_proj.weight)
        self.gate = fused_weight(feed.gate_proj.weight, norm=layer.post_attention_layernorm.weight)
        self.up = fused_weight(feed.up_proj.weight, norm=layer.post_attention_layernorm.weight)
        self.down = fused_weight(feed.down_proj.weight)
        self.heads, self.eps = own.heads, layer.input_layernorm.eps

    def projections(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, S, d), positions turned in. turn: cosine and signed sine, (B, S, d)."""
        parts = F.linear(rms_norm(x, self.eps), self.qkv).unflatten(2, (3 * self.heads, -1))
        cosine, sine = (angles[:, :, None] for angles in turn)
        both = parts[:, :, :2 * self.heads]  # queries and keys
        turned = (both * cosine).addcmul_(both.roll(both.shape[3] // 2, 3), sine).to(parts.dtype)
        return *split_heads(turned.flatten(2), 2, self.heads), parts[:, :, 2 * self.heads:].transpose(1, 2)

    def add_to(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> None:
        """Attention and feed-forward beside the residual x, in place; without a bias attention is causal."""
        x += F.linear(attend(query, key, value, bias, query.shape[3] ** -0.5), self.o)
        plain = rms_norm(x, self.eps)
        gate = F.silu(F.linear(plain, self.gate), inplace=True)
        x += F.linear(gate.mul_(F.linear(plain, self.up)), self.down)


class LlamaState:
    """A search with the history's keys and values computed once a user: prefixes are the queries.

    Keys and values of all prefixes are behind the history's in the order they were made; each prefix knows which of
    them are its own past.
    """

    def __init__(self, model: Llama, histories: Tensor) -> None:
        s, self.embedding = model.settings, model.model.embed_tokens.weight.detach()
        self.norm, self.head = model.model.norm.weight.detach(), fused_weight(self.embedding)
        self.layers = [LeanLayer(layer) for layer in model.model.layers]
        self.eps, self.angles = model.model.norm.eps, (s.head_width, s.rope_theta)
        if not histories.shape[1]:
            histories = F.pad(histories, (0, 1), value=PAD)
        self.position = ((histories != PAD).sum(1, keepdim=True) - 1).clamp(min=0)
        self.root = histories.gather(1, self.position)  # the last token, still to be read
        histories = histories[:, :-1]  # nobody sees the last column: what is there is somebody's root
        columns = torch.arange(histories.shape[1], device=histories.device)
        self.sees = columns < self.position[:, :, None]  # (B, 1, S): columns before the last token
        self.paths = Paths(len(histories), histories.device)
        self.past: list[tuple[Rows, Rows]] = []  # keys and values of history and slots, layer by layer
        self._read(histories, columns[None])

    def _read(self, histories: Tensor, positions: Tensor) -> None:
        """Leave the keys and values of every layer over all columns."""
        x, turn = F.embedding(histories, self.embedding), self._turn(positions)
        for layer in self.layers:
            query, key, value = layer.projections(x, turn)
            self.past.append((Rows(key, ROOM), Rows(value, ROOM)))
            if layer is not self.layers[-1]:
                layer.add_to(x, query, key, value, None)

    def _turn(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        cosine, sine = (angles[:, 0] for angles in rotary(positions, *self.angles))
        first, second = sine.chunk(2, dim=2)
        return cosine, torch.cat([-first, second], dim=2)

    def first(self) -> Tensor:
        return self._step(self.root, self.paths.root())

    def advance(self, parents: Tensor, tokens: Tensor) -> Tensor:
        return self._step(tokens, self.paths.extend(parents))

    def forget(self, count: int) -> None:
        self.paths.forget(count)
        for rows in itertools.chain(*self.past):
            rows.forget(count)

    def select(self, users: Tensor) -> LlamaState:
        chosen = copy.copy(self)
        chosen.position, chosen.root, chosen.sees = self.position[users], self.root[users], self.sees[users]
        chosen.past = [(key.select(users), value.select(users)) for key, value in self.past]
        chosen.paths = self.paths.select(users)
        return chosen

    def _step(self, tokens: Tensor, sight: Sight) -> Tensor:
        sees = torch.cat([self.sees.expand(-1, tokens.shape[1], -1), sight.sees], dim=2)
        bias = torch.zeros(sees.shape, device=sees.device).masked_fill_(~sees, -torch.inf)[:, None]
        x, turn = F.embedding(tokens, self.embedding), self._turn(self.position + sight.depths)
        for layer, past in zip(self.layers, self.past, strict=True):
            query, *own = layer.projections(x, turn)
            key, value = (rows.add(part, sight.slots) for rows, part in zip(past, own, strict=True))
            layer.add_to(x, query, key, value, bias)
        return F.linear(rms_norm(x, self.eps) * self.norm, self.head).float()


def from_huggingface(model: Any) -> Llama:
    """Our network with the weights of a `LlamaForCausalLM`, float32, in eval mode.

    Raises: UserError for another class (such as Qwen2 or Mistral), for a configuration or weights that this network
    does not have (another activation, biases, shared keys and values, untied output, scaled rotary positions, dropout,
    another pad id), and where the logits differ on a random batch.
    """
    check_class(model, "LlamaForCausalLM", "llama")
    config, rope = model.config, _rope(model.config)
    tied = config.tie_word_embeddings and torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    check_settings({
        "hidden_act is not silu": config.hidden_act != "silu",
        "attention_bias or mlp_bias is set": bool(config.attention_bias or getattr(config, "mlp_bias", False)),
        "num_key_value_heads differs from num_attention_heads":
            config.num_key_value_heads != config.num_attention_heads,
        "output and input embeddings are not tied": not tied,
        "rotary positions are scaled": rope.get("type", rope.get("rope_type")) != "default"
                                       or rope.get("partial_rotary_factor", 1.0) != 1.0,
        "attention_dropout is not 0": bool(config.attention_dropout),
        "pad_token_id is not 0": (config.pad_token_id or 0) != PAD,
    }, "Llama")
    settings = LlamaSettings(
        width=config.hidden_size, num_layers=config.num_hidden_layers, num_heads=config.num_attention_heads,
        head_width=_head_width(config), feed_forward_width=config.intermediate_size, norm_eps=config.rms_norm_eps,
        rope_theta=float(rope["rope_theta"]), max_positions=config.max_position_embeddings)
    settings.check()
    ours = Llama(settings, config.vocab_size).eval()
    copy_weights(ours, model, "model.embed_tokens.weight")
    check_logits(ours, model, _teacher_forced, longest=settings.max_positions - LEVELS)
    return ours


def _teacher_forced(model: Any, histories: Tensor, candidates: Tensor) -> Tensor:
    logits = model(input_ids=torch.cat([histories, candidates[:, :-1]], dim=1)).logits
    return logits[:, histories.shape[1] - 1:]


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _rope(config: Any) -> dict[str, Any]:
    """Settings of rotary positions, which transformers 5 keeps in one table."""
    if getattr(config, "rope_parameters", None):
        return dict(config.rope_parameters)
    return {"rope_theta": config.rope_theta, "rope_type": "default", **(config.rope_scaling or {})}


def to_huggingface(backbone: Llama) -> Any:
    """The same weights as a Hugging Face `LlamaForCausalLM` in eval mode; needs `transformers`.

    Raises: UserError where `transformers` is missing or names its weights differently.
    """
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        raise UserError("to_huggingface needs transformers: pip install 'genrec-bench[huggingface]'.") from None
    s = backbone.settings
    config = LlamaConfig(
        vocab_size=backbone.model.embed_tokens.num_embeddings, hidden_size=s.width, num_hidden_layers=s.num_layers,
        num_attention_heads=s.num_heads, num_key_value_heads=s.num_heads, head_dim=s.head_width,
        intermediate_size=s.feed_forward_width, hidden_act="silu", rms_norm_eps=s.norm_eps, rope_theta=s.rope_theta,
        max_position_embeddings=s.max_positions, tie_word_embeddings=True, pad_token_id=PAD, bos_token_id=None,
        eos_token_id=EOS)
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(backbone.state_dict(), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise UserError(f"this transformers version names Llama weights differently: {missing}, {unexpected}.")
    model.tie_weights()
    return model.eval()
