"""Modules that are imported when they are first used, so that settings can be listed and planned without torch."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class LazyModule(ModuleType):
    """Replaces a module until it is used. A name that has been used is kept here and costs nothing more."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python asks modules for these when it looks through them
            raise AttributeError(name)
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


torch = LazyModule("torch")
F = LazyModule("torch.nn.functional")
pandas = LazyModule("pandas")
