"""The plug-in mechanism: one file registers one name, found by importing its package."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError, unknown

NAME = re.compile(r"[a-z][a-z0-9_-]*")  # so that it can be a word of `--set`, a key and a folder


class Registry:
    """Plug-ins of one kind. The modules of `package` that register any are imported when a name is first asked for.

    A plug-in is a frozen dataclass: its fields are its settings. Registering a name twice is an error.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._classes: dict[str, type] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[type], type]:
        """Class decorator: `@objectives.register("dpo")`."""

        def add(cls: type) -> type:
            if not NAME.fullmatch(name):
                raise UserError(f"{self.kind} {name!r}: a name has lower-case letters, digits, - and _, and begins "
                                "with a letter.")
            known = self._classes.get(name)
            if known is not None and _origin(known) != _origin(cls):
                raise UserError(f"{self.kind} {name!r} is registered twice, first in {_origin(known)[0]}. Give yours "
                                "another name.")
            if not dataclasses.is_dataclass(cls):
                raise UserError(f"{self.kind} {name!r} must be a dataclass: its fields are its settings.")
            cls.name = name
            self._classes[name] = cls
            return cls

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for name in sorted(f"{self.package}.{m.name}" for m in pkgutil.iter_modules(package.__path__)
                           if not m.name.startswith("_")):
            source = importlib.util.find_spec(name).loader.get_source(name) or ""
            if ".register(" in source:  # not what plug-ins share, such as networks, which would load torch
                importlib.import_module(name)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self.classes())

    def classes(self) -> dict[str, type]:
        """The class of every name."""
        self._load()
        return dict(self._classes)

    def get(self, name: str, where: str = "") -> type:
        """The class of a name. Raises: UserError with the nearest match."""
        self._load()
        if not isinstance(name, str) or name not in self._classes:
            raise unknown(self.kind, name, self._classes, where)
        return self._classes[name]

    def build(self, spec: Mapping[str, Any], **context: Any) -> Any:
        """An instance from `{"name": ..., <setting>: ...}`; `context` adds values that are not the user's."""
        values = {k: v for k, v in spec.items() if k != "name"}
        cls = self.get(spec["name"])
        return settings.build(cls, {**values, **context}, f"{self.kind} {spec['name']}")


def _origin(cls: type) -> tuple[str, str]:
    """What a class is the same by, however often and under whatever name its module is imported: file and name."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return str(Path(file).resolve()) if file else cls.__module__, cls.__qualname__


def resolved(instance: Any) -> dict[str, Any]:
    """The spec that builds a plug-in again, with every default filled in."""
    return {"name": instance.name, **settings.to_dict(instance)}


def identity(instance: Any) -> dict[str, Any]:
    """Name, version and settings that differ from their defaults; of a user's own file also the digest of its code.

    A plug-in that reads files which a setting names, such as an encoder's, tells their digest as `content_digest`.
    """
    digests = {"source": getattr(instance, "source_digest", None),
               "content": getattr(instance, "content_digest", None)}
    return {"name": instance.name, "version": getattr(instance, "version", 1),
            **{name: digest for name, digest in digests.items() if digest}, **settings.differing(instance)}


datasets = Registry("dataset", "genrec_bench.datasets")
splits = Registry("split", "genrec_bench.splits")
tokenizers = Registry("tokenizer", "genrec_bench.tokenizers")
backbones = Registry("backbone", "genrec_bench.backbones")
objectives = Registry("objective", "genrec_bench.objectives")
metrics = Registry("metric", "genrec_bench.metrics")
baselines = Registry("baseline", "baselines")
KINDS = (datasets, splits, tokenizers, backbones, objectives, metrics, baselines)


def kind_of(name: str, where: str = "") -> Registry:
    """The kind that a name is registered as. Raises: UserError with the nearest match."""
    kinds = {known: kind for kind in KINDS for known in kind.names()}
    if name not in kinds:
        raise unknown("plug-in", name, kinds, where)
    return kinds[name]
