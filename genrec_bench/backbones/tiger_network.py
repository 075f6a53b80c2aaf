"""The network of TIGER: a T5 encoder-decoder from flat history codes to the codes of the next item.

Rajput et al. 2023, arXiv 2305.05065; sizes of APAO (arXiv 2603.02730, App. C). Parameter names are those of
Hugging Face `T5ForConditionalGeneration`, so that weights load both ways.
Differs from the paper: no user token, one flat vocabulary (as APAO); the decoder starts from PAD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genrec_bench.backbones.base import Backbone
from genrec_bench.backbones.dropout import Dropout, relu_dropout
from genrec_bench.backbones.folding import PrefixTree, attend_along_paths
from genrec_bench.backbones.huggingface import check_class, check_logits, check_settings, copy_weights
from genrec_bench.backbones.inference import search_floats
from genrec_bench.backbones.layers import (
    TOKENS,
    Group,
    Shape,
    attention,
    fused_weight,
    like_length,
    rms_norm,
)
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.backbones.tiger_state import TigerState
from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.devices import compute_dtype, on_device
from genrec_bench.core.errors import UserError


def build(settings: TigerSettings, vocab_size: int, seed: int) -> Tiger:
    """A freshly initialised network."""
    model = Tiger(settings, vocab_size)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def relative_buckets(queries: int, keys: int, *, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """T5's bucket of each (query, key) offset: (queries, keys) int64. Half the buckets are exact, half logarithmic."""
    offset = torch.arange(keys)[None, :] - torch.arange(queries)[:, None]
    base = torch.zeros_like(offset)
    if bidirectional:
        num_buckets //= 2
        base = (offset > 0).long() * num_buckets
        distance = offset.abs()
    else:
        distance = (-offset).clamp(min=0)
    exact = num_buckets // 2
    # in float32 as Hugging Face computes it, so that borderline distances fall into the same bucket
    ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (ratio * (num_buckets - exact)).long()).clamp(max=num_buckets - 1)
    return base + torch.where(distance < exact, distance, far)


@lru_cache(maxsize=64)
def buckets_on(device: torch.device, queries: int, keys: int, bidirectional: bool, num_buckets: int,
               max_distance: int) -> Tensor:
    """`relative_buckets` on a device, computed on the host and kept there: shapes of histories come again and again."""
    with torch.inference_mode(False):  # else what a search has left could not be trained with
        return on_device(device, relative_buckets(queries, keys, bidirectional=bidirectional, num_buckets=num_buckets,
                                                  max_distance=max_distance))


class Attention(nn.Module):
    """T5 attention: no scaling by sqrt(d), an additive position bias."""

    def __init__(self, settings: TigerSettings, *, has_bias: bool, bidirectional: bool) -> None:
        super().__init__()
        inner = settings.num_heads * settings.head_width
        self.heads, self.dropout, self.bidirectional = settings.num_heads, settings.dropout, bidirectional
        self.buckets, self.max_distance = settings.num_buckets, settings.max_distance
        self.q = nn.Linear(settings.width, inner, bias=False)
        self.k = nn.Linear(settings.width, inner, bias=False)
        self.v = nn.Linear(settings.width, inner, bias=False)
        self.o = nn.Linear(inner, settings.width, bias=False)
        if has_bias:
            self.relative_attention_bias = nn.Embedding(settings.num_buckets, settings.num_heads)

    @property
    def rate(self) -> float:
        """At which weights are dropped now."""
        return self.dropout if self.training else 0.0

    def position_bias(self, queries: int, keys: int) -> Tensor:
        """(1, heads, queries, keys) additive bias."""
        buckets = buckets_on(self.relative_attention_bias.weight.device, queries, keys, self.bidirectional,
                             self.buckets, self.max_distance)
        return self.relative_attention_bias(buckets).permute(2, 0, 1)[None]

    def split(self, x: Tensor, *layers: nn.Linear, norm: Tensor) -> Tensor:
        """What linear layers make of (..., D): (..., layers, heads, d). norm: weights of the norm before them."""
        mixed = F.linear(x, fused_weight(*(layer.weight for layer in layers), norm=norm))
        return mixed.unflatten(-1, (len(layers), self.heads, -1))

    def join(self, mixed: Tensor) -> Tensor:
        """(..., heads * d) -> (..., D)"""
        return F.linear(mixed, fused_weight(self.o.weight))

    def forward(self, x: Tensor, norm: Tensor, groups: Sequence[Group]) -> Tensor:
        """Of (rows, D) to themselves."""
        return self.join(attention(self.split(x, self.q, self.k, self.v, norm=norm), None, groups, self.rate))

    def to_history(self, x: Tensor, norm: Tensor, memory: Tensor, groups: Sequence[Group]) -> Tensor:
        """Of (rows, D) to keys and values that are at hand."""
        return self.join(attention(self.split(x, self.q, norm=norm), memory, groups, self.rate))

    def along_paths(self, x: Tensor, norm: Tensor, tree: PrefixTree, bias: Tensor) -> Tensor:
        """Of (B * P, D) nodes to their own paths; bias: (heads, levels)."""
        query, key, value = self.split(x.unflatten(0, tree.tokens.shape), self.q, self.k, self.v, norm=norm).unbind(2)
        mixed = attend_along_paths(query, key, value, tree, bias, self.rate)
        return self.join(mixed.flatten(2).flatten(0, 1))


class FeedForward(nn.Module):
    """Two matrices around a ReLU."""

    def __init__(self, settings: TigerSettings) -> None:
        super().__init__()
        self.wi = nn.Linear(settings.width, settings.feed_forward_width, bias=False)
        self.wo = nn.Linear(settings.feed_forward_width, settings.width, bias=False)
        self.dropout = settings.dropout

    def forward(self, x: Tensor, norm: Tensor) -> Tensor:
        inner = F.linear(x, fused_weight(self.wi.weight, norm=norm))
        return F.linear(relu_dropout(inner, self.dropout if self.training else 0.0), fused_weight(self.wo.weight))


class SubLayer(nn.Module):
    """Norm, inner module, dropout, residual; the inner module carries Hugging Face's name for it.

    The inner module multiplies the weights of the norm into its own: one pass less over what it reads.
    """

    def __init__(self, settings: TigerSettings, name: str, inner: nn.Module) -> None:
        super().__init__()
        self.add_module(name, inner)
        self.layer_norm = nn.RMSNorm(settings.width, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    @property
    def inner(self) -> Any:
        return next(m for name, m in self.named_children() if name not in ("layer_norm", "dropout"))

    def forward(self, x: Tensor, *args: Any, through: str = "forward") -> Tensor:
        """The residual step. through: which of the inner module's ways it takes."""
        plain = rms_norm(x, self.layer_norm.eps)
        return x + self.dropout(getattr(self.inner, through)(plain, self.layer_norm.weight, *args))


class Block(nn.Module):
    """One layer of the encoder (self-attention, feed-forward) or decoder (cross-attention between them)."""

    def __init__(self, settings: TigerSettings, *, decoder: bool, first: bool) -> None:
        super().__init__()
        parts = [SubLayer(settings, "SelfAttention", Attention(settings, has_bias=first, bidirectional=not decoder))]
        if decoder:
            parts.append(SubLayer(settings, "EncDecAttention", Attention(settings, has_bias=False,
                                                                         bidirectional=True)))
        parts.append(SubLayer(settings, "DenseReluDense", FeedForward(settings)))
        self.layer = nn.ModuleList(parts)


class Stack(nn.Module):
    """Encoder or decoder blocks with the final norm."""

    def __init__(self, settings: TigerSettings, *, decoder: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(settings, decoder=decoder, first=i == 0) for i in range(settings.num_layers))
        self.final_layer_norm = nn.RMSNorm(settings.width, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def position_bias(self, queries: int, keys: int) -> Tensor:
        return self.block[0].layer[0].inner.position_bias(queries, keys)

    def last(self, x: Tensor) -> Tensor:
        """The final norm without its weights, and dropout."""
        return self.dropout(rms_norm(x, self.final_layer_norm.eps))


class Tiger(Backbone):
    """The network. `node_logits` serves training and exact scoring, `start` serves beam search."""

    history_suffix = (EOS,)

    def __init__(self, settings: TigerSettings, vocab_size: int, *, scale_output: bool = True) -> None:
        super().__init__()
        self.settings = settings
        self.output_scale = settings.width ** -0.5 if scale_output else 1.0
        self.shared = nn.Embedding(vocab_size, settings.width)
        self.encoder = Stack(settings, decoder=False)
        self.decoder = Stack(settings, decoder=True)

    def initialise(self, generator: torch.Generator) -> None:
        """T5's initial weights (factor 1): normal, scaled so that attention needs no 1/sqrt(d)."""
        s = self.settings
        inner = s.num_heads * s.head_width
        spread = {"shared": 1.0, "q": (s.width * s.head_width) ** -0.5, "k": s.width ** -0.5, "v": s.width ** -0.5,
                  "o": inner ** -0.5, "wi": s.width ** -0.5, "wo": s.feed_forward_width ** -0.5,
                  "relative_attention_bias": s.width ** -0.5}
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                kind = name.split(".")[-2]
                if kind in spread:
                    parameter.normal_(0.0, spread[kind], generator=generator)

    def embed(self, tokens: Tensor, stack: Stack) -> Tensor:
        """(rows,) token ids -> what the first block of a stack reads, (rows, D), in the precision of autocast."""
        x = self.shared(tokens)
        return stack.dropout(x.to(compute_dtype(x)))

    def encode(self, histories: Tensor) -> tuple[Tensor, list[Group]]:
        """(B, S) token ids -> hidden states (rows, D) before the weights of the final norm, and whose rows they are.

        On a CPU histories of like length are padded together, and not all to the longest.
        """
        on_cpu = histories.device.type == "cpu"
        histories = histories if histories.shape[1] else F.pad(histories, (0, 1), value=PAD)
        ends = ((histories != PAD) * torch.arange(1, histories.shape[1] + 1, device=histories.device)).amax(1)
        parts = like_length(ends) if on_cpu else [(slice(None), histories.shape[1])]  # PAD may be in the middle
        tokens = [histories[users, :longest] for users, longest in parts]
        empty = ends == 0 if on_cpu else torch.zeros_like(ends, dtype=torch.bool)  # elsewhere torch knows such rows
        groups = []
        for (users, _), part in zip(parts, tokens, strict=True):
            unread = (part == PAD) & ~empty[users, None]
            mask = torch.zeros(part.shape, device=part.device).masked_fill(unread, -torch.inf)
            bias = self.encoder.position_bias(part.shape[1], part.shape[1])
            groups.append(Group(Shape(*part.shape, part.shape[1]), mask[:, None, None], bias))
        flat = torch.cat([part.flatten() for part in tokens])
        x = self.embed(F.pad(flat, (0, -len(flat) % TOKENS if on_cpu else 0), value=PAD), self.encoder)
        for block in self.encoder.block:
            x = block.layer[1](block.layer[0](x, groups))
        states = self.encoder.last(x)
        if on_cpu and empty.any():  # nothing comes from a history without a token, as in a search
            rows = torch.cat([empty[users, None].expand(part.shape).flatten()
                              for (users, _), part in zip(parts, tokens, strict=True)])
            states = states.masked_fill(F.pad(rows, (0, len(states) - len(rows)))[:, None], 0.0)
        return states, groups

    def logits(self, x: Tensor) -> Tensor:
        """(..., D) decoder outputs -> (..., V) logits, float32."""
        norm = self.decoder.final_layer_norm.weight * self.output_scale
        return F.linear(self.decoder.last(x), fused_weight(self.shared.weight, norm=norm)).float()

    def node_logits(self, histories: Tensor, tree: PrefixTree) -> Tensor:
        states, groups = self.encode(histories)
        (users, columns), levels, final = tree.tokens.shape, len(tree.widths), self.encoder.final_layer_norm.weight
        histories_of = [Group(Shape(group.shape.users, columns, group.shape.keys), group.mask) for group in groups]
        bias = self.decoder.position_bias(levels, levels)
        before = torch.full((levels, levels), -torch.inf, device=bias.device).triu(1)
        chain = [Group(Shape(users, levels, levels), before, bias)]
        up = bias[0, :, -1].flip(1)  # (heads, levels): of the key so many levels up
        x = self.embed(tree.tokens.flatten(), self.decoder)
        for own, cross, feed in (block.layer for block in self.decoder.block):
            memory = cross.inner.split(states, cross.inner.k, cross.inner.v, norm=final)
            x = own(x, chain) if tree.is_chain else own(x, tree, up, through="along_paths")
            x = feed(cross(x, memory, histories_of, through="to_history"))
        return self.logits(x).unflatten(0, (users, columns))

    def start(self, histories: Tensor) -> TigerState:
        return TigerState(self, histories)

    def decoding_floats(self, history: int, beams: int, depth: int) -> int:
        s = self.settings
        return search_floats(history, beams, depth, width=s.width, inner=s.num_heads * s.head_width, heads=s.num_heads,
                             feed_forward=s.feed_forward_width, layers=s.num_layers, vocab=len(self.shared.weight))


def from_huggingface(model: Any) -> Tiger:
    """Our network with the weights of a `T5ForConditionalGeneration`, float32, in eval mode.

    Histories are read as they come (the caller ends them with EOS), attention covers ids other than 0, the decoder
    starts from id 0. Raises: UserError for another class (such as MT5), for a configuration or weights that this
    network does not have (gated feed-forward, untied output, another start or pad id, encoder and decoder of different
    depth), and where the logits differ on a random batch.
    """
    check_class(model, "T5ForConditionalGeneration", "t5")
    config = model.config
    # transformers 5 always says "tied", also of a checkpoint whose two matrices differ
    tied = config.tie_word_embeddings and torch.equal(model.lm_head.weight, model.shared.weight)
    check_settings({
        "feed_forward_proj is not relu": getattr(config, "feed_forward_proj", "relu") != "relu",
        "output and input embeddings are not tied": not tied,
        "decoder_start_token_id is not 0": (config.decoder_start_token_id or 0) != PAD,
        "pad_token_id is not 0": (config.pad_token_id or 0) != PAD,
        "num_decoder_layers differs from num_layers":
            (config.num_decoder_layers or config.num_layers) != config.num_layers,
    }, "TIGER")
    settings = TigerSettings(
        width=config.d_model, num_layers=config.num_layers, num_heads=config.num_heads, head_width=config.d_kv,
        feed_forward_width=config.d_ff, dropout=config.dropout_rate, num_buckets=config.relative_attention_num_buckets,
        max_distance=config.relative_attention_max_distance, norm_eps=config.layer_norm_epsilon)
    settings.check()
    scale = getattr(config, "scale_decoder_outputs", None)
    ours = Tiger(settings, config.vocab_size, scale_output=True if scale is None else scale).eval()
    copy_weights(ours, model, "shared.weight")
    check_logits(ours, model, _teacher_forced)
    return ours


def _teacher_forced(model: Any, histories: Tensor, candidates: Tensor) -> Tensor:
    return model(input_ids=histories, decoder_input_ids=F.pad(candidates, (1, -1), value=PAD)).logits


def to_huggingface(backbone: Tiger) -> Any:
    """The same weights as a Hugging Face `T5ForConditionalGeneration` in eval mode; needs `transformers`.

    Raises: UserError where `transformers` is missing, or cannot express that the output is not scaled.
    """
    try:
        from transformers import T5Config, T5ForConditionalGeneration
    except ImportError:
        raise UserError("to_huggingface needs transformers: pip install 'genrec-bench[huggingface]'.") from None
    s = backbone.settings
    config = T5Config(
        vocab_size=backbone.shared.num_embeddings, d_model=s.width, d_kv=s.head_width, d_ff=s.feed_forward_width,
        num_layers=s.num_layers, num_decoder_layers=s.num_layers, num_heads=s.num_heads, dropout_rate=s.dropout,
        relative_attention_num_buckets=s.num_buckets, relative_attention_max_distance=s.max_distance,
        layer_norm_epsilon=s.norm_eps, feed_forward_proj="relu", tie_word_embeddings=True, pad_token_id=PAD,
        eos_token_id=EOS, decoder_start_token_id=PAD)
    scaled = backbone.output_scale == s.width ** -0.5
    if hasattr(config, "scale_decoder_outputs"):
        config.scale_decoder_outputs = scaled
    elif not scaled:
        raise UserError("to_huggingface: this transformers version always scales a tied output, which this network "
                        "does not. Use transformers 5.")
    model = T5ForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(backbone.state_dict(), strict=False)
    tied = {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    if unexpected or set(missing) - tied:
        raise UserError(f"this transformers version names T5 weights differently: {missing}, {unexpected}.")
    model.tie_weights()
    return model.eval()
