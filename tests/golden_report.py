"""A tiny record set and its report, kept in tests/golden; `python -m tests.golden_report` writes it again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from genrec_bench.contracts import Rankings
from genrec_bench.reporting import markdown
from genrec_bench.results.records import RecordStore, RunRecord
from tests.small_records import SEEDS, record_of, suite_record

FOLDER = Path(__file__).parent / "golden"
KEPT = ("index.md", "apao/report.md", "apao/appendix.md", "apao/tables/tests.csv", "papers/apao.md",
        "papers/apao/table-1.tex")
USERS = 300
# Share of users whose target is at place 1, by method; drawn from the same numbers for the same seed.
SHARES = {"SASRec (RecBole, CE)": 0.10, "TIGER + cross-entropy": 0.05, "TIGER + APAO-Pointwise": 0.12,
          "TIGER + MSL": 0.05}


def records() -> list[RunRecord]:
    """Five methods on ml-100k, one with a seed missing, and cross-entropy with the paper's data and settings."""
    made = [record_of("ml-100k", "sasrec", s) for s in SEEDS] + [record_of("ml-100k", "item_knn", 0)]
    for label, value in (("TIGER + cross-entropy", 0.03), ("TIGER + APAO-Pointwise", 0.04)):
        made += [suite_record(label, s, value + 0.001 * s) for s in SEEDS]
    made += [suite_record("TIGER + MSL", s, 0.03) for s in SEEDS[:2]]
    return made + [record_of("apao_office", "tiger", s) for s in SEEDS]


def stored_in(folder: Path) -> Path:
    """The records with ranks in a folder."""
    for record in records():
        hit = np.random.default_rng(record.seed).random(USERS) < SHARES.get(record.label, 0.08)
        ranks = Rankings(hit.astype(int), np.ones(USERS, dtype=int), hit.astype(int))
        RecordStore(folder).write(record, ranks, ranks)
    return folder


def rendered(results: Path) -> dict[str, str]:
    """The files that are kept, by name, without pictures."""
    pages, _ = markdown.build("apao", markdown.Source(RecordStore(results).read_all(), results, drawn=False))
    return {name: pages.files[name].decode() for name in KEPT}


def main() -> None:
    """Write the report in tests/golden again."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in rendered(stored_in(Path(folder))).items():
            path = FOLDER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
