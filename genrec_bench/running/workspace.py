"""Where runs are made: the folder of results, the data and semantic IDs that runs share, and what state a run is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from genrec_bench.contracts import SemanticIds, Split, digest
from genrec_bench.core.walk import is_held
from genrec_bench.datasets import parsed
from genrec_bench.experiments import identity
from genrec_bench.experiments.config import RunConfig
from genrec_bench.results.records import RecordStore
from genrec_bench.splits.base import with_valid_users
from genrec_bench.tokenizers.base import fit_cached

FAILURE = "failure.txt"


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start: its data, its semantic IDs and its name. uses: what is taken -> the run with it."""

    config: RunConfig
    split: Split
    semantic_ids: SemanticIds | None
    identity: dict[str, Any]
    run_id: str
    uses: Mapping[str, Prepared] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        return self.split.interactions.name

    @property
    def before(self) -> list[Prepared]:
        """The runs that it uses, each once."""
        return list({used.run_id: used for used in self.uses.values()}.values())


def _texts(config: RunConfig, split: Split) -> str | None:
    """A fingerprint of the item texts, where they name a run; see `identity.identity_parts`."""
    own = config.dataset.needs_path or getattr(config.dataset, "source_digest", None)
    read = own and config.baseline is not None and config.baseline.reads_texts
    return digest(*split.interactions.item_texts or ()) if read else None


@dataclass
class Workspace:
    """Where runs read and write, and what they share: each dataset is read once, each tokenizer fitted once.

    Below `results`: `<dataset>/<run_id>.json` and `.ranks.npz` of finished runs, `<dataset>/<split>.users.npz` of their
    splits, `work/<run_id>/` with checkpoints and logs, `cache/` with read data and fitted tokenizers. track: names of
    trackers. plugins: the user's files, `FILE.py` or `FILE.py:NAME`, which a process that runs for this workspace loads
    first.
    """

    results: Path
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1
    track: tuple[str, ...] = ()
    command: str = ""
    plugins: tuple[str, ...] = ()
    _parsed: dict[Any, parsed.Parsed] = field(default_factory=dict, repr=False)
    _splits: dict[Any, Split] = field(default_factory=dict, repr=False)
    _ids: dict[Any, SemanticIds] = field(default_factory=dict, repr=False)

    @cached_property
    def store(self) -> RecordStore:
        """The records below `results`."""
        return RecordStore(self.results)

    def folder(self, run_id: str) -> Path:
        """The working folder of one run."""
        return self.results / "work" / run_id

    def split(self, config: RunConfig, *, keep: bool = False) -> Split:
        """The split of a run's dataset, read once. keep: whether what was read is left for other processes."""
        dataset, key = config.dataset, (config.dataset, config.split)
        if dataset not in self._parsed:
            self._parsed[dataset] = parsed.read(dataset, self.data_dir, self.results / "cache" / "data")
        if key not in self._splits:
            whole = config.split.split(self._parsed[dataset].data)
            self._splits[key] = with_valid_users(whole, config.split.valid_users)
        if keep:
            self._parsed[dataset].keep(dataset, self.data_dir)
        return self._splits[key]

    def prepare(self, config: RunConfig, *, keep: bool = True) -> Prepared:
        """Read the data, split it, make the semantic IDs and name the run. keep=False leaves no file behind."""
        split = self.split(config, keep=keep)
        ids = self._semantic_ids(config, keep) if config.tokenizer else None
        uses = {used.take: self.prepare(used.run, keep=keep) for used in config.uses}
        parts = identity.identity_parts(config, split.fingerprint, ids.fingerprint if ids else None,
                                        {take: used.run_id for take, used in uses.items()}, _texts(config, split))
        return Prepared(config, split, ids, parts, identity.run_id(parts), uses)

    def _semantic_ids(self, config: RunConfig, keep: bool) -> SemanticIds:
        key = config.dataset, config.tokenizer
        if key not in self._ids:
            cache = self.results / "cache" / "tokenizers"
            self._ids[key] = fit_cached(config.tokenizer, self._parsed[config.dataset].data,
                                        cache if keep or cache.is_dir() else None)
        return self._ids[key]

    def status(self, run_id: str) -> str:
        """done, damaged (finished once, its files cannot be read), running (by some process), failed, interrupted
        (begun, not finished) or missing."""
        if self.store.find(run_id):
            return "done"
        if self.store.damage(run_id):
            return "damaged"
        folder = self.folder(run_id)
        if is_held(folder):
            return "running"
        if (folder / FAILURE).exists():
            return "failed"
        return "interrupted" if folder.is_dir() else "missing"
