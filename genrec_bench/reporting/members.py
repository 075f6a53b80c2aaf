"""Which records are runs of a suite."""

from __future__ import annotations

from collections.abc import Callable

from genrec_bench.reporting.rows import load_suite, row_of
from genrec_bench.results.records import RunRecord


def of_suite(name: str) -> Callable[[RunRecord], bool]:
    """Whether a record is a run of a suite, or of one that it includes. Raises: UserError for an unknown suite."""
    suite = load_suite(name)
    rows = [load_suite(part).rows for part in suite.includes] or [suite.rows]
    return lambda record: any(row_of(record.config, some) for some in rows)
