"""Contract checks of each kind of plug-in but objectives: each fault is found by its check."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec_bench.backbones.base import Backbone
from genrec_bench.backbones.settings import BackboneSettings
from genrec_bench.contracts import PAD, Baseline, Interactions, Job, Outcome, Rankings, SemanticIds, Split
from genrec_bench.core import registry
from genrec_bench.core.registry import Registry
from genrec_bench.core.settings import setting
from genrec_bench.datasets.base import Dataset
from genrec_bench.metrics.base import Metric
from genrec_bench.running.plugin_checks import check_plugin, made_up
from genrec_bench.splits.base import SplitRule, first_users, from_the_end
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.tokenizers.base import Tokenizer

torch.set_num_threads(1)


@dataclass(frozen=True)
class Made(Dataset):
    """What the checks make up."""

    name: ClassVar[str] = "made-up"
    default_tokenizer: ClassVar[str] = "given"
    how_to_get: ClassVar[str] = "it is made up"
    files: ClassVar[tuple[str, ...]] = ()
    change: ClassVar[Callable[[Interactions], dict[str, Any]]] = staticmethod(lambda data: {})

    def location(self, data_dir: Path | None) -> str:
        return "nowhere"

    def missing_files(self, data_dir: Path | None) -> list[str]:
        return list(self.files)

    def load(self, data_dir: Path | None) -> Interactions:
        data = made_up()
        return dataclasses.replace(data, **type(self).change(data))


@dataclass(frozen=True)
class Numbers(Tokenizer):
    """The number of an item in two digits, after a change."""

    name: ClassVar[str] = "numbers"
    change: ClassVar[Callable[[np.ndarray], np.ndarray]] = staticmethod(lambda tokens: tokens)

    def fit(self, interactions: Interactions) -> SemanticIds:
        items = np.arange(interactions.num_items)
        ids = SemanticIds.from_codes(np.stack([items // 10, items % 10], axis=1), (10, 10))
        return dataclasses.replace(ids, tokens=type(self).change(ids.tokens))


@dataclass(frozen=True)
class Inverse(Metric):
    """1 / rank."""

    name: ClassVar[str] = "inverse"

    def gain(self, ranks: np.ndarray) -> np.ndarray:
        return 1.0 / ranks


class Bag(Backbone):
    """Logits from the mean of the history and the sum of what was read; `leak` adds what it must not know."""

    def __init__(self, vocab: int, seed: int, leak: str) -> None:
        super().__init__()
        self.leak, self.weight = leak, nn.Parameter(torch.randn(vocab, vocab, generator=torch.Generator().manual_seed(
            seed if leak != "seed" else torch.seed() % 1000)))

    def token_logits(self, histories: Tensor, candidates: Tensor) -> Tensor:
        real = torch.ones_like(histories) if self.leak == "padding" else histories != PAD
        user = (self.weight[histories] * real[:, :, None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        read = self.weight[candidates].cumsum(dim=2)
        before = read if self.leak == "future" else read - self.weight[candidates]
        logits = user[:, None, None] + before + self.weight.sum(dim=0)
        return logits + logits.mean() * (self.leak == "others") + (torch.rand(()) if self.leak == "random" else 0.0)


@dataclass(frozen=True)
class Bags(BackboneSettings):
    """A bag of tokens."""

    leak: str = setting("", "what is wrong with it")

    def build(self, vocab_size: int, seed: int) -> Backbone:
        return Bag(vocab_size, seed, self.leak)


@dataclass(frozen=True)
class Popular(Baseline):
    """Items by what `counted` says of the data, after a change of the ranks."""

    name: ClassVar[str] = "popular"
    seeded: ClassVar[bool] = False
    change: ClassVar[Callable[[np.ndarray, Job], np.ndarray]] = staticmethod(lambda places, job: places)
    training: ClassVar[dict[str, Any]] = {"epochs": 0}

    def counted(self, job: Job) -> Any:
        return job.split.train_sequences

    def run(self, job: Job) -> Outcome:
        counts = np.bincount(np.concatenate(self.counted(job)), minlength=job.split.num_items)
        order = np.argsort(np.argsort(-counts, kind="stable"))
        parts = []
        for rows in (job.split.valid, job.split.test, job.split.test):
            places = order[rows.targets] + 1
            places = type(self).change(np.where(places > 20, 0, places), job)
            parts.append(Rankings(places, np.ones_like(places), places))
        return Outcome(*parts, self.training, {"train_seconds": 0.0})


@dataclass(frozen=True)
class Cut(SplitRule):
    """Leave-one-out after a change."""

    name: ClassVar[str] = "cut"
    title: ClassVar[str] = "Cut"
    change: ClassVar[Callable[[Split], dict[str, Any]]] = staticmethod(lambda split: {})

    def split(self, interactions: Interactions) -> Split:
        made = from_the_end(first_users(interactions, self.max_users), self, valid=1, test=1)
        return replace(made, **type(self).change(made))


def variant(cls: type, **members: Any) -> Any:
    """An instance of a class with other members."""
    return dataclass(frozen=True)(type(cls.__name__, (cls,), {"__annotations__": {}, **{
        name: staticmethod(value) if name == "change" else value for name, value in members.items()}}))()


def changed(tokens: np.ndarray, row: int, values: list[int]) -> np.ndarray:
    tokens = tokens.copy()
    tokens[row] = values
    return tokens


KINDS = {Made: registry.datasets, Cut: registry.splits, Numbers: registry.tokenizers, Inverse: registry.metrics,
         Bags: registry.backbones, Popular: registry.baselines}
ticks = itertools.count(1)


@pytest.mark.parametrize("cls", KINDS)
def test_a_sound_plugin_passes_every_check(cls: type) -> None:
    for plugin in (cls, cls()):
        assert not [f for f in check_plugin(KINDS[cls], plugin) if not f.passed]


FAULTS: list[tuple[type, dict[str, Any], str, str]] = [
    (Made, {"how_to_get": ""}, "says where its files are", "how_to_get that people can read"),
    (Made, {"files": ("x.csv",)}, "finds its files", "missing: x.csv"),
    (Made, {"change": lambda d: {"name": "other"}}, "unique users and items", "the name 'made-up'.*saw 'other'"),
    (Made, {"change": lambda d: {"item_ids": ("i0",) * d.num_items}}, "unique users and items", "99 repeats"),
    (Made, {"change": lambda d: {"sequences": d.sequences[1:]}}, "a sequence of item numbers", "each of 60.*saw 59"),
    (Made, {"change": lambda d: {"sequences": tuple(s + 50 for s in d.sequences)}}, "a sequence of item numbers",
     "item numbers 0 to 99"),
    (Made, {"change": lambda d: {"sequences": tuple(s[:2] for s in d.sequences)}}, "a sequence of item numbers",
     "3 items or more; saw 2"),
    (Made, {"change": lambda d: {"times": tuple(-np.arange(len(s)) for s in d.sequences)}}, "of all or of none",
     "oldest first"),
    (Made, {"change": lambda d: {"item_texts": d.item_texts[1:]}}, "of all or of none", "a text for each of 100"),
    (Made, {"change": lambda d: {"repeats_dropped": next(ticks)}}, "read again", "other repeats_dropped"),
    (Made, {"change": lambda d: {"given_codes": None}}, "a tokenizer that works", "codes, as its tokenizer is"),
    (Made, {"default_tokenizer": "givn"}, "a tokenizer that works", "unknown tokenizer 'givn'"),
    (Cut, {"title": ""}, "a title for reports", "a title for reports"),
    (Cut, {"change": lambda s: {"train": s.train.where(s.train.users < 0)}}, "rows of all parts", "rows of train"),
    (Cut, {"change": lambda s: {"valid": replace(s.valid, users=s.valid.users[::-1])}}, "rows of all parts", "by user"),
    (Cut, {"change": lambda s: {"valid": replace(s.valid, targets=s.valid.histories.values[s.valid.histories.starts])}},
     "before their targets", "valid, row 0: items that its user had before"),
    (Cut, {"change": lambda s: {"test": replace(s.test, seen=None)}}, "had before a target", "an array a row"),
    (Cut, {"change": lambda s: {"test": replace(s.test, seen=tuple(seen[:3] for seen in s.test.seen))}},
     "had before a target", "test.seen to hold the history"),
    (Cut, {"change": lambda s: {"train_sequences": s.interactions.sequences}}, "no target of another part",
     "no valid target in training"),
    (Cut, {"change": lambda s: {"valid": s.test}}, "no target of another part", "no test target in validation"),
    (Cut, {"split": lambda self, data: from_the_end(data, LeaveOneOut(), valid=1, test=1)},
     "max_history and max_users", "2 items of history"),
    (Cut, {"change": lambda s: {"train": s.train.where(np.arange(len(s.train)) % 7 != next(ticks) % 7)}},
     "same rows again", "the same rows again"),
    (Numbers, {"change": lambda t: t[1:]}, "every item", r"tokens of shape \(100, 2\).*saw \(99, 2\)"),
    (Numbers, {"change": lambda t: t.astype(np.int32)}, "every item", "int64; saw int32"),
    (Numbers, {"change": lambda t: changed(t, 3, [2, 2])}, "range of their level", "tokens 12 to 21 at level 2"),
    (Numbers, {"change": lambda t: changed(t, 3, [0, 13])}, "range of their level", "tokens 2 to 11 at level 1"),
    (Numbers, {"change": lambda t: changed(t, 3, [2, PAD])}, "begins another", r"saw \[2, 0\] and \[2, 12\]"),
    (Numbers, {"change": lambda t: np.roll(t, next(ticks), axis=0)}, "same IDs again", "the same IDs again"),
    (Numbers, {"change": lambda t: t[np.argsort(np.random.rand(len(t)))]}, "same IDs again", "those of numpy were"),
    (Inverse, {"name": "id_inverse"}, "a name that keys can hold", "begins with none of id_"),
    (Inverse, {"gain": lambda self, ranks: 2 / ranks}, "in its range", "values from 0.0 to 1.0"),
    (Inverse, {"gain": lambda self, ranks: 0.5 / ranks}, "best at rank 1", "1.0 at rank 1; saw 0.5"),
    (Inverse, {"gain": lambda self, ranks: 1 - 0.01 * ((ranks - 3) ** 2)}, "falls with the rank", "no better value"),
    (Bags, {"leak": "seed"}, "same weights from the same seed", "other weight"),
    (Bags, {"leak": "random"}, "the same again", "those of torch were drawn"),
    (Bags, {"leak": "future"}, "no token before its time", "row 0 the same whatever tokens 0"),
    (Bags, {"leak": "padding"}, "does not see padding", "five PAD more"),
    (Bags, {"leak": "others"}, "users and candidates alone", "the same for user 0 alone"),
    (Popular, {"change": lambda p, job: p - 1}, "ranks the target of every row", "ranks from 0 to 20"),
    (Popular, {"change": lambda p, job: p[1:]}, "ranks the target of every row", "60 whole numbers, a row each"),
    (Popular, {"change": lambda p, job: p * 0}, "ranks the target of every row", "some target among the first 20"),
    (Popular, {"training": {"loss": float("nan")}}, "what a record can hold", "raised ValueError"),
    (Popular, {"change": lambda p, job: np.roll(p, next(ticks))}, "from the same seed", "other valid.ranks"),
    (Popular, {"change": lambda p, job: np.roll(p, job.seed)}, "only where it says so", "as seeded is False"),
    (Popular, {"counted": lambda self, job: job.split.interactions.sequences}, "nothing from test targets",
     "whatever the test targets are"),
]


@pytest.mark.parametrize(("cls", "members", "check", "words"), FAULTS)
def test_each_fault_is_found(cls: type, members: dict[str, Any], check: str, words: str) -> None:
    kind: Registry = KINDS[cls]
    found = check_plugin(kind, Bags(**members) if cls is Bags else variant(cls, **members))
    (finding,) = [f for f in found if check in f.name]
    assert not finding.passed and re.search(words, finding.detail) and "\n" not in finding.detail, finding


def test_a_class_that_does_not_build_is_the_one_finding() -> None:
    (finding,) = check_plugin(registry.datasets, registry.datasets.get("folder"))
    assert not finding.passed and "needs a value for path" in finding.detail
