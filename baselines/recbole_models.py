"""The models of RecBole 1.2.1 that the suite runs, one settings class each; the defaults are RecBole's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from baselines.recbole_adapter import RecBole
from genrec_bench.contracts import Split
from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.core.registry import baselines
from genrec_bench.core.settings import setting
from genrec_bench.experiments.config import RunConfig

SHARE = {"low": 0.0, "high": 1.0}
ACTIVATIONS = ("gelu", "relu", "swish", "tanh", "sigmoid")


@dataclass(frozen=True)
class Transformer(RecBole):
    """Settings that RecBole's transformers share."""

    n_layers: int = setting(2, "transformer layers", low=1)
    n_heads: int = setting(2, "attention heads", low=1)
    hidden_size: int = setting(64, "width", low=1)
    inner_size: int = setting(256, "width of the feed-forward layer", low=1)
    hidden_dropout_prob: float = setting(0.5, "dropout of hidden states", **SHARE)
    attn_dropout_prob: float = setting(0.5, "dropout of attention weights", **SHARE)
    hidden_act: str = setting("gelu", "activation", choices=ACTIVATIONS)
    layer_norm_eps: float = setting(1e-12, "epsilon of layer normalisation", low=0.0)
    initializer_range: float = setting(0.02, "standard deviation of initial weights", low=0.0)

    def __post_init__(self) -> None:
        """Raises: UserError for heads that do not divide the width."""
        check_heads(self.name, self.n_heads, self.hidden_size)


def check_heads(name: str, heads: int, width: int) -> None:
    """Raises: UserError where the heads do not divide the width."""
    if width % heads:
        raise UserError(f"baseline {name}: n_heads = {heads} must divide the width {width}.")


@baselines.register("sasrec")
@dataclass(frozen=True)
class SASRec(Transformer):
    """Kang and McAuley 2018, arXiv 1808.09781.

    Differs from the paper: one target a row with a softmax over all items; the paper has every position and binary
    cross-entropy, which RecBole does not offer.
    """

    model: ClassVar[str] = "SASRec"


@baselines.register("bert4rec")
@dataclass(frozen=True)
class BERT4Rec(Transformer):
    """Sun et al. 2019, arXiv 1904.06690.

    Differs from the paper: as shipped RecBole never trains on a row's target and cuts the oldest item when it ranks;
    `protocol` "target_appended" fixes both, "stock" keeps them. With CE no negatives are drawn, which it never reads.
    """

    model: ClassVar[str] = "BERT4Rec"
    softmaxes: ClassVar[int] = 4  # a fifth of 20 items is masked

    hidden_dropout_prob: float = setting(0.2, "dropout of hidden states", **SHARE)
    attn_dropout_prob: float = setting(0.2, "dropout of attention weights", **SHARE)
    mask_ratio: float = setting(0.2, "share of items masked", **SHARE)
    ft_ratio: float = setting(0.5, "share of batches that mask only the last item", **SHARE)
    protocol: str = setting("target_appended", "how rows are read", choices=("target_appended", "stock"))

    @property
    def label(self) -> str:
        """The protocol matters more than the loss."""
        return f"BERT4Rec (RecBole, {self.protocol.replace('_', ' ')})"

    def check_fit(self, config: RunConfig, split: Split) -> None:
        """Refuse a mask without an item, and draws outside a row that has every item. Raises: DoesNotFit."""
        appended = self.protocol == "target_appended"
        width = config.split.max_history + appended
        if int(self.mask_ratio * width) < 1:
            raise DoesNotFit(f"baseline bert4rec: mask_ratio = {self.mask_ratio} masks no item of a sequence of "
                             f"{width}; it must be at least {1 / width:.2g}.")
        if self.loss_type == "BPR":
            rows = split.train
            self.check_draws(split, sum(len({*rows.history(n), *rows.targets[n:n + appended]}) == split.num_items
                                        for n in np.flatnonzero(rows.lengths + appended >= split.num_items)))


@baselines.register("gru4rec")
@dataclass(frozen=True)
class GRU4Rec(RecBole):
    """Tan et al. 2016, arXiv 1606.08117, as RecBole has it. Differs from the paper: see `RecBole`."""

    model: ClassVar[str] = "GRU4Rec"

    embedding_size: int = setting(64, "width of embeddings", low=1)
    hidden_size: int = setting(128, "width of the GRU", low=1)
    num_layers: int = setting(1, "layers", low=1)
    dropout_prob: float = setting(0.3, "dropout", **SHARE)


@baselines.register("caser")
@dataclass(frozen=True)
class Caser(RecBole):
    """Tang and Wang 2018, arXiv 1809.07426, as RecBole has it. Differs from the paper: see `RecBole`."""

    model: ClassVar[str] = "Caser"

    embedding_size: int = setting(64, "width of embeddings", low=1)
    dropout_prob: float = setting(0.4, "dropout", **SHARE)
    reg_weight: float = setting(1e-4, "L2 penalty inside the loss", low=0.0)
    nv: int = setting(4, "vertical filters", low=1)
    nh: int = setting(8, "horizontal filters", low=1)


@baselines.register("nextitnet")
@dataclass(frozen=True)
class NextItNet(RecBole):
    """Yuan et al. 2019, arXiv 1808.05163, as RecBole has it. Differs from the paper: see `RecBole`."""

    model: ClassVar[str] = "NextItNet"

    embedding_size: int = setting(64, "width of embeddings", low=1)
    kernel_size: int = setting(3, "width of a filter", low=1)
    block_num: int = setting(5, "residual blocks", low=1)
    dilations: tuple[int, ...] = setting((1, 4), "dilation of each layer of a block", low=1)
    reg_weight: float = setting(1e-5, "L2 penalty inside the loss", low=0.0)


@baselines.register("core")
@dataclass(frozen=True)
class CORE(RecBole):
    """Hou et al. 2022, arXiv 2204.11067, as RecBole has it. Differs from the paper: see `RecBole`."""

    model: ClassVar[str] = "CORE"
    samples: ClassVar[bool] = False

    embedding_size: int = setting(64, "width of embeddings", low=1)
    inner_size: int = setting(256, "width of the feed-forward layer", low=1)
    n_layers: int = setting(2, "transformer layers", low=1)
    n_heads: int = setting(2, "attention heads", low=1)
    hidden_dropout_prob: float = setting(0.5, "dropout of hidden states", **SHARE)
    attn_dropout_prob: float = setting(0.5, "dropout of attention weights", **SHARE)
    hidden_act: str = setting("gelu", "activation", choices=ACTIVATIONS)
    layer_norm_eps: float = setting(1e-12, "epsilon of layer normalisation", low=0.0)
    initializer_range: float = setting(0.02, "standard deviation of initial weights", low=0.0)
    dnn_type: str = setting("trm", "how item weights are made", choices=("trm", "ave"))
    sess_dropout: float = setting(0.2, "dropout of session items", **SHARE)
    item_dropout: float = setting(0.2, "dropout of candidates", **SHARE)
    temperature: float = setting(0.07, "temperature of the softmax", low=0.0)

    def __post_init__(self) -> None:
        """Raises: UserError for heads that do not divide the width, or a loss that CORE does not have."""
        check_heads(self.name, self.n_heads, self.embedding_size)
        if self.loss_type != "CE":
            raise UserError("baseline core: CORE has loss_type CE only.")
