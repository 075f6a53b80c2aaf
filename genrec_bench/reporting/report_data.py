"""All that a report is made from: a suite, its runs in blocks, and what lies beside their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec_bench.contracts import Rankings
from genrec_bench.metrics.base import averaged, row_values
from genrec_bench.reporting.families import Tested, tested
from genrec_bench.reporting.figures.style import looks
from genrec_bench.reporting.load import Block, Group, arrange, unique_runs
from genrec_bench.reporting.papers import Paper, load_paper
from genrec_bench.reporting.pruning import Searched, searched
from genrec_bench.reporting.rows import Suite
from genrec_bench.results import diagnoses, test_users
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.results.test_users import UserFacts

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class ReportData:
    """A suite's runs as blocks, and on demand what is computed from them, each once.

    results: the folder of the records, for what lies beside them (ranks, diagnoses, facts about users); without it
    nothing is tested and what needs them is not drawn. overrides: what `--set` changes of the suite's rows.
    """

    suite: Suite
    blocks: tuple[Block, ...]
    results: Path | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _values: dict[tuple[str, str, int, bool], np.ndarray] = field(default_factory=dict, repr=False)
    _groups: dict[str, np.ndarray | None] = field(default_factory=dict, repr=False)  # `Rankings.users` by split

    @classmethod
    def of(cls, suite: Suite, records: Sequence[RunRecord], results: Path | None = None,
           overrides: Mapping[str, Mapping[str, Any]] | None = None) -> ReportData:
        """The data of a suite's report; records of other suites are left out."""
        return cls(suite, tuple(arrange(suite, records, overrides)), results, overrides or {})

    @cached_property
    def runs(self) -> DataFrame:
        """A line a run, each once; see `load.run_table`."""
        return unique_runs(self.blocks)

    @cached_property
    def paper(self) -> Paper | None:
        """The paper whose printed numbers stand beside ours."""
        return load_paper(self.suite.paper) if self.suite.paper else None

    @cached_property
    def look(self) -> Mapping[str, tuple[str, str]]:
        """Colour and marker by row key."""
        return looks(self.blocks)

    @cached_property
    def diagnoses(self) -> Mapping[str, Diagnosis]:
        """The diagnoses of its runs, by run_id. Raises: UserError for a damaged one."""
        if self.results is None:
            return {}
        store = RecordStore(self.results)
        found = {r.run_id: diagnoses.find(store, r) for r in self.runs["record"]}
        return {run_id: diagnosis for run_id, diagnosis in found.items() if diagnosis is not None}

    @cached_property
    def searched(self) -> Mapping[str, Searched | None]:
        """What was diagnosed of each block, by the block's name."""
        return {block.name: searched(block, self.diagnoses) for block in self.blocks}

    @cached_property
    def families(self) -> tuple[Tested, ...]:
        """The suite's declared families with their tests; () without ranks, and for rows that `--set` changes."""
        testable = self.results is not None and not self.overrides
        return tuple(tested(self.suite, self.blocks, self.values)) if testable else ()

    @cached_property
    def ranked(self) -> bool:
        """Whether the ranks of all its runs are at hand."""
        return self.results is not None and all(map(RecordStore(self.results).holds, self.runs["record"]))

    def ranks(self, record: RunRecord, *, unseen: bool = False) -> Rankings:
        """The per-user ranks of a run; unseen: without what users had before. Raises: UserError for a damaged file."""
        return RecordStore(self.results).read_ranks(record, unseen=unseen)

    def values(self, group: Group, metric: str = "ndcg", k: int = 10, *, unseen: bool = False) -> np.ndarray | None:
        """(seeds, users) item-level values of a row, not to be changed; None where its ranks are not at hand.

        What is not seeded has one row, whatever it was run with. Of a user with several test rows it is their mean.
        """
        found = self.row_values(group, metric, k, unseen=unseen)
        return None if found is None else averaged(found, self.row_users(group))

    def row_users(self, group: Group) -> np.ndarray | None:
        """(N,) the user of each test row, None where every row is another's; the ranks are at hand."""
        record = group.records[0]
        if record.split_fingerprint not in self._groups:
            self._groups[record.split_fingerprint] = self.ranks(record).users
        return self._groups[record.split_fingerprint]

    def row_values(self, group: Group, metric: str = "ndcg", k: int = 10, *, unseen: bool = False) -> np.ndarray | None:
        """The same of test rows, (seeds, N) in the order of the split."""
        rows = []
        for record in group.records if group.row.seeded else group.records[:1]:
            key = record.run_id, metric, k, unseen
            if key not in self._values:
                if self.results is None or not RecordStore(self.results).holds(record):
                    return None
                self._values[key] = row_values(metric, self.ranks(record, unseen=unseen), k)
            rows.append(self._values[key])
        return np.stack(rows)

    def users(self, block: Block) -> UserFacts | None:
        """What is known of a block's test rows, or None where it is not stored."""
        record = block.groups[0].records[0]
        fingerprint = record.identity.get("split_fingerprint")
        if self.results is None or fingerprint is None:
            return None
        return test_users.find_users(RecordStore(self.results), record.dataset, fingerprint)
