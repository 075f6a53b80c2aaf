"""The machine that a table was made on, and whether it was quiet."""

from __future__ import annotations

import os
from importlib import metadata

from genrec_bench.core.provenance import provenance

QUIET = 0.3  # load average of the last minute, in cores, above which figures are not to be trusted


def describe() -> dict[str, str]:
    """CPU, cores, versions, commit and the load average before the start, as texts of a table."""
    about = provenance("cpu", 1, "")
    commit = about.get("commit", "no checkout")[:12] + (" and changes" if about.get("dirty") else "")
    return {"machine": f"{about['cpu']}, {os.cpu_count()} cores", "commit": commit,
            "versions": f"Python {about['python']}, torch {about['torch']}, transformers "
                        f"{metadata.version('transformers')}", "load": f"{os.getloadavg()[0]:.2f}"}


def is_quiet(load: str) -> bool:
    """Whether the load average before the start leaves the cores to the benchmark."""
    return float(load) <= QUIET
