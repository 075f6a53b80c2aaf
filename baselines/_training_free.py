"""What baselines share that learn nothing by gradient: one fit on counts and texts, one ranking a part. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from genrec_bench.contracts import Baseline, Interactions, Job, Outcome, Split
from genrec_bench.evaluate import Ranked


@dataclass(frozen=True)
class TrainingFree(Baseline):
    """Base of baselines that fit once and rank; a subclass defines `fit`, `parameters` and `rank`."""

    seeded: ClassVar[bool] = False

    def fit(self, split: Split) -> Any:
        """All that `rank` needs, from what training may see and the catalogue."""
        raise TypeError(f"{type(self).__name__} must define fit")

    def parameters(self, fitted: Any) -> int:
        """How many numbers the fit holds."""
        raise TypeError(f"{type(self).__name__} must define parameters")

    def rank(self, job: Job, fitted: Any, part: str) -> Ranked:
        """Rank the targets of a part ("valid" or "test") under both policies."""
        raise TypeError(f"{type(self).__name__} must define rank")

    def run(self, job: Job) -> Outcome:
        """Fit, then rank the validation and test targets."""
        started = job.meter.seconds()
        fitted = self.fit(job.split)
        train_seconds = job.meter.seconds() - started
        started = job.meter.seconds()
        valid, test = (self.rank(job, fitted, part) for part in ("valid", "test"))
        seconds = job.meter.seconds() - started
        job.progress.step(1, 1, "counted")
        users = len(job.split.valid) + len(job.split.test)
        return Outcome(valid.kept, *test, {"epochs": 0, "best_epoch": 0, "curve": [],
                                           "parameters": self.parameters(fitted), "stopped": "no training"},
                       {"train_seconds": train_seconds, "decode_users_per_second": users / seconds})


def has_texts(interactions: Interactions) -> bool:
    """Whether any item has a text."""
    return any(text.strip() for text in interactions.item_texts or ())


def fields_of(interactions: Interactions, fields: str) -> list[str]:
    """Of every item its first line, where `fields` is "title", or all of its text."""
    texts = interactions.item_texts
    return [text.partition("\n")[0] for text in texts] if fields == "title" else list(texts)
