"""Contract checks of plug-ins: what a check is, what it finds, and the check that is the same for every kind."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError

Checks = Mapping[str, Callable[..., str | None]]  # what must hold -> a function that returns a remark, or raises


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check: passed, or in `detail` what was expected and what was seen."""

    name: str
    passed: bool
    detail: str = ""


class Broken(Exception):
    """What a check expected and what it saw."""


class Unusable(Broken):
    """A fault that the checks after it would only find again in other words."""


def expect(holds: Any, expected: str, seen: Any, kind: type[Broken] = Broken) -> None:
    """Raises: Broken, or the `kind` of it that is named, where something does not hold."""
    if not holds:
        raise kind(f"expected {expected}; saw {' '.join(str(seen).split())}")


def findings(checks: Checks, instance: Any, *given: Any) -> list[Finding]:
    """Every check of a plug-in in turn; only an `Unusable` fault ends it. given: what the checks get besides it."""
    found = []
    for name, check in checks.items():
        try:
            found.append(Finding(name, True, check(instance, *given) or ""))
        except Broken as broken:
            found.append(Finding(name, False, str(broken)))
            if isinstance(broken, Unusable):
                break
        except Exception as error:  # noqa: BLE001  whatever a plug-in raises is a finding
            found.append(Finding(name, False, told(error, type(instance))))
    return found


def told(error: Exception, cls: type) -> str:
    """An error as one line, after the last line of the plug-in's own file; a UserError alone, for it says it all."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    own = getattr(sys.modules.get(cls.__module__), "__file__", None)
    place = ([f for f in frames if f.filename == own] or frames)[-1]
    text = f"raised {type(error).__name__}: {' '.join(str(error).split())}"
    hint = " (is what it reads among its needs?)" if "NoneType" in text and hasattr(cls, "needs") else ""
    return f"{text}{hint} ({place.filename}, line {place.lineno})"


def is_a_component(instance: Any, *_: Any) -> None:
    """A frozen dataclass with documented settings, which builds again from them, also as a record holds them."""
    cls = type(instance)
    expect(dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen, "a frozen dataclass",
           f"{cls.__name__} without @dataclass(frozen=True)")
    bare = [f.name for f in dataclasses.fields(cls) if not f.metadata.get("doc", "").strip()]
    expect(not bare, "a setting(default, doc) for every field", f"no doc for {', '.join(bare)}")
    version = getattr(cls, "version", 1)
    expect(isinstance(version, int), "a whole number as version", repr(version))
    again = settings.build(cls, json.loads(json.dumps(settings.to_dict(instance))), cls.__name__)
    expect(again == instance, "an equal one from its own settings", again)


@contextmanager
def no_global_draws() -> Iterator[None]:
    """Raises: Broken where what is done inside draws global random numbers."""
    before = _states()
    yield
    moved = [name for name, state in _states().items() if before.get(name, state) != state]
    expect(not moved, "untouched global random numbers", f"those of {', '.join(moved)} were drawn")


def _states() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    return {**({"torch": torch.get_rng_state().tolist()} if torch else {}),
            "numpy": str(np.random.get_state()[1:]), "random": random.getstate()}
