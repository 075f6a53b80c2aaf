"""Who made a record: versions, machine, commit and command. Nothing here may enter metrics or names."""

from __future__ import annotations

import platform
import re
import subprocess
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "scipy", "pandas", "scikit-learn", "recbole", "safetensors")
VERSIONS = (*(name.replace("-", "_") for name in PACKAGES), "genrec_bench", "python", "commit", "dirty")
CODE = ("genrec_bench", "baselines")
ABSOLUTE = re.compile(r"""(?<![^\s=,'"])/(?:[^\s,'"/]+/)*([^\s,'"/]+)/?""")


def provenance(device: str, threads: int, command: str) -> dict[str, Any]:
    """Plain data for the record."""
    packages = {name.replace("-", "_"): version for name in PACKAGES if (version := _version(name))}
    return {**packages, "genrec_bench": own_version(), "python": platform.python_version(),
            "platform": platform.platform(terse=True), "cpu": _cpu(), "device": device_name(device),
            "threads": threads, "command": portable(command), **_commit()}


def versions(known: Mapping[str, Any]) -> dict[str, Any]:
    """Of some provenance what may move numbers on one machine: versions of packages and of the code."""
    return {name: known[name] for name in VERSIONS if name in known}


def unlike(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """What `there` has otherwise than `here`, of what both of them say."""
    return {name: there[name] for name, value in here.items() if there.get(name, value) != value}


def told_apart(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The same for people: "torch 2.12.0 there, 2.13.0 here"; "" where nothing is unlike."""
    def short(name: str, value: Any) -> str:
        return str(value)[:10] if name == "commit" else str(value)

    return "; ".join(f"{name} {short(name, value)} there, {short(name, here[name])} here"
                     for name, value in unlike(there, here).items())


def portable(command: str) -> str:
    """A command that names no folder of one machine: paths inside the current folder are relative to it, and of any
    other only the last name is left, as in `.../datasets`."""
    return ABSOLUTE.sub(r".../\1", command.replace(f"{Path.cwd()}/", ""))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def own_version() -> str:
    """The version of this package: of the source beside it, else as installed."""
    path = Path(__file__).resolve().parents[2] / "pyproject.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]["version"] if path.exists() \
        else _version("genrec-bench") or "unknown"


def _cpu(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name with family and model, because a cloud names several generations alike ("AMD EPYC")."""
    try:
        text = info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    first = {name.strip(): value.strip() for name, _, value in lines}
    kind = ", ".join(f"{word} {first[name]}" for name, word in (("cpu family", "family"), ("model", "model"))
                     if name in first)
    name = first.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({kind})" if kind else name


def device_name(device: str) -> str:
    """The device as records name it: "cpu", or "cuda" with the model in brackets; numbers are equal where this is."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"cuda ({torch.cuda.get_device_name(device)})"


def _commit(root: Path | None = None) -> dict[str, Any]:
    """The commit the code is at and whether the code may differ from it; empty outside a checkout.

    dirty: a tracked file differs, or a file that git does not know is among the code, such as a new plug-in.
    """
    root = Path(__file__).resolve().parents[2] if root is None else root

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, encoding="utf-8",
                                  errors="replace", timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    unknown = git("ls-files", "--others", "--exclude-standard", "--", *CODE)
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no") or unknown)}
