"""What the figures of diagnoses have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.reporting.figures.charts import point
from genrec_bench.reporting.figures.style import Look
from genrec_bench.reporting.pruning import Diagnosed, Searched


def line(panel: str, quantity: str, row: Diagnosed, places: Iterable[float],
         values: Sequence[Estimate]) -> list[dict[str, Any]]:
    """A row's estimates with intervals; places without cases are left out."""
    return [point(panel, quantity, row.name, "mean", place, e.value, e)
            for place, e in zip(places, values, strict=True) if e.n]


def looks_of(look: Mapping[str, Look], families: Mapping[str, Sequence[Diagnosed]]) -> dict[str, Look]:
    """The styles of rows by their names."""
    return {row.name: look[row.row.key] for rows in families.values() for row in rows}


def fewer_seeds(found: Searched, families: Mapping[str, Sequence[Diagnosed]]) -> str:
    """The end of a caption that says of how many seeds each row is diagnosed; "" where all are of all seeds."""
    whole = len(found.block.seeds)
    counts = {len(row.seeds) for rows in families.values() for row in rows}
    if min(counts) >= whole:
        return ""
    if len(counts) == 1:
        return f". Diagnosed: {counts.pop()} of {whole} seeds of each row"
    texts = [f"{family}: " + ", ".join(f"{row.group.name} {len(row.seeds)}" for row in rows)
             for family, rows in families.items()]
    return f". Diagnosed, of {whole} seeds: {'; '.join(texts)}"


def fullest(rows: Sequence[Diagnosed]) -> list[Diagnosed]:
    """The rows with as many seeds as the one with the most: among others the best would be picked by luck."""
    most = max((len(row.seeds) for row in rows), default=0)
    return [row for row in rows if len(row.seeds) == most]
