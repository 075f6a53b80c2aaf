"""The defaults of every component beside its version, stored in `tests/golden/defaults.json`.

A run's name holds only settings that differ from their defaults. So whoever changes a default raises the version of its
component, or of the engine for a section. `python -m tests.defaults` writes the file anew, and refuses to where a
version was forgotten.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from genrec_bench.core import registry
from genrec_bench.experiments import config, identity

STORED = Path(__file__).parent / "golden" / "defaults.json"
KINDS = {kind.kind: kind for kind in registry.KINDS}
Pins = dict[str, dict[str, Any]]  # kind -> name -> {"version": ..., "defaults": {setting: value}}


def current() -> Pins:
    """The defaults as the code has them; those that are required have none."""
    pins = {kind: {name: _pin(known.get(name), getattr(known.get(name), "version", 1)) for name in known.names()}
            for kind, known in KINDS.items()}
    pins["section"] = {name: _pin(cls, identity.ENGINE_VERSION) for name, cls in config.PARTS.items()}
    return pins


def _pin(cls: type, version: int) -> dict[str, Any]:
    values = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    return {"version": version, "defaults": json.loads(json.dumps(values))}


def changed_alone(stored: Pins, now: Pins) -> list[str]:
    """The settings whose stored default is another one now, or gone, though the version is the same."""
    return [f"{kind}.{name}.{key}" for kind, parts in stored.items() for name, pin in parts.items()
            if (new := now.get(kind, {}).get(name)) and new["version"] == pin["version"]
            for key, value in pin["defaults"].items() if new["defaults"].get(key, dataclasses.MISSING) != value]


if __name__ == "__main__":
    found = changed_alone(json.loads(STORED.read_text(encoding="utf-8")), current()) if STORED.exists() else []
    if found:
        sys.exit(f"changed without a new version: {', '.join(found)}")
    STORED.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
