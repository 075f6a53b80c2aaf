"""TIGER: settings of the T5 encoder-decoder.

Rajput et al. 2023, arXiv 2305.05065; sizes of APAO (arXiv 2603.02730, App. C). The network, and its weights from and to
Hugging Face, are in `tiger_network`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrec_bench.backbones.settings import BackboneSettings
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import backbones
from genrec_bench.core.settings import setting

if TYPE_CHECKING:
    from genrec_bench.backbones.tiger_network import Tiger


@backbones.register("tiger")
@dataclass(frozen=True)
class TigerSettings(BackboneSettings):
    """Sizes of the T5 network; defaults are APAO's (App. C and its released configuration)."""

    width: int = setting(128, "model width D", low=1)
    num_layers: int = setting(4, "layers of the encoder and of the decoder", low=1)
    num_heads: int = setting(6, "attention heads", low=1)
    head_width: int = setting(64, "width of one head", low=1)
    feed_forward_width: int = setting(1024, "inner width of the feed-forward layers (ReLU)", low=1)
    dropout: float = setting(0.1, "dropout of embeddings, attention weights and layer outputs", low=0.0, high=0.99)
    num_buckets: int = setting(32, "buckets of the relative position bias", low=4)
    max_distance: int = setting(128, "distance from which on positions share a bucket", low=2)
    norm_eps: float = setting(1e-6, "epsilon of the RMS norms", low=0.0)

    def check(self) -> None:
        """Refuse sizes for which the buckets of the position bias are not defined. Raises: UserError."""
        if self.num_buckets < 4:
            raise UserError(f"backbone tiger: num_buckets = {self.num_buckets} is too small; it must be at least 4.")
        if self.max_distance <= self.num_buckets // 2:
            raise UserError(f"backbone tiger: max_distance = {self.max_distance} must be greater than half of "
                            f"num_buckets = {self.num_buckets}, so at least {self.num_buckets // 2 + 1}.")

    def build(self, vocab_size: int, seed: int) -> Tiger:
        from genrec_bench.backbones import tiger_network

        return tiger_network.build(self, vocab_size, seed)
