"""Llama: settings of the decoder-only network.

Touvron et al. 2023, arXiv 2302.13971; sizes of APAO (arXiv 2603.02730, App. C and its released configuration). The
network, and its weights from and to Hugging Face, are in `llama_network`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrec_bench.backbones.settings import BackboneSettings
from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.core.registry import backbones
from genrec_bench.core.settings import setting

if TYPE_CHECKING:
    from genrec_bench.backbones.llama_network import Llama


@backbones.register("llama")
@dataclass(frozen=True)
class LlamaSettings(BackboneSettings):
    """Sizes of the Llama network; defaults are APAO's (App. C and its released configuration)."""

    width: int = setting(128, "model width D", low=1)
    num_layers: int = setting(8, "layers", low=1)
    num_heads: int = setting(8, "attention heads, each with keys and values of its own", low=1)
    head_width: int = setting(16, "width of one head, an even number", low=2)
    feed_forward_width: int = setting(1024, "inner width of the feed-forward layers (SwiGLU)", low=1)
    norm_eps: float = setting(1e-5, "epsilon of the RMS norms", low=0.0)
    rope_theta: float = setting(5e5, "base of the rotary position embedding", low=1.0)
    max_positions: int = setting(1024, "most tokens of history and semantic ID together", low=1)

    def check(self) -> None:
        """Refuse a head width that rotary positions cannot halve. Raises: UserError."""
        if self.head_width % 2:
            raise UserError(f"backbone llama: head_width = {self.head_width} must be an even number.")

    def check_length(self, tokens: int) -> None:
        """Refuse more tokens than there are positions. Raises: DoesNotFit."""
        if tokens > self.max_positions:
            raise DoesNotFit(f"backbone llama: {tokens} tokens of history and semantic ID are more than max_positions "
                             f"= {self.max_positions}. Raise it, or lower split.max_history.")

    def build(self, vocab_size: int, seed: int) -> Llama:
        from genrec_bench.backbones import llama_network

        return llama_network.build(self, vocab_size, seed)
