"""The machine that a table was made on, and whether it was quiet."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

from genrec_bench.core.provenance import provenance

# What keeps glibc from giving freed memory back and asking for it, zeroed, again. Read when a process starts.
KEEPS = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000",
         "MALLOC_TOP_PAD_": "268435456"}
QUIET = 0.3  # load average of the last minute, in cores, above which figures are not to be trusted


def describe() -> dict[str, str]:
    """CPU, cores, versions, commit and the load average before the start, as texts of a table."""
    about = provenance("cpu", 1, "")
    commit = about.get("commit", "no checkout")[:12] + (" and changes" if about.get("dirty") else "")
    return {"machine": f"{about['cpu']}, {os.cpu_count()} cores", "commit": commit,
            "versions": f"Python {about['python']}, torch {about['torch']}, transformers "
                        f"{metadata.version('transformers')}", "load": f"{os.getloadavg()[0]:.2f}"}


def precisions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """What networks are measured in: bfloat16 only where the processor has instructions for its matrix products."""
    words = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()
    return ("float32", "bfloat16") if words & {"avx512_bf16", "amx_bf16"} else ("float32",)


def is_quiet(load: str) -> bool:
    """Whether the load average before the start leaves the cores to the benchmark."""
    return float(load) <= QUIET
