"""Settings as frozen dataclasses: typed, checked, built strictly from plain data."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from genrec_bench.core.errors import UserError, unknown


def setting(default: Any, doc: str, *, choices: tuple | None = None, low: float | None = None,
            high: float | None = None, identity: bool = True) -> Any:
    """A dataclass field with its documentation, allowed values and whether it names the run.

    `identity=False` is for what cannot change a number, such as a path to the same data.
    """
    meta = {"doc": doc, "choices": choices, "low": low, "high": high, "identity": identity}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """Build dataclass `cls` from plain values, refusing unknown keys, wrong types and values out of range.

    `where` names the place in messages, e.g. "backbone.tiger". Raises: UserError.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = _hints(cls)
    for key in values:
        if key not in fields:
            raise unknown("setting", key, fields, where)
    checked = {key: _convert(value, hints[key], f"{where}.{key}") for key, value in values.items()}
    missing = [n for n, f in fields.items() if n not in checked and f.default is dataclasses.MISSING
               and f.default_factory is dataclasses.MISSING]
    if missing:
        raise UserError(f"{where} needs a value for {', '.join(missing)}.")
    for key, value in checked.items():
        _check_range(value, fields[key].metadata, f"{where}.{key}")
    return cls(**checked)


_hints = cache(typing.get_type_hints)


def to_dict(instance: Any) -> dict[str, Any]:
    """The settings of a dataclass instance as plain JSON-able data, defaults filled in."""
    return {f.name: _plain(getattr(instance, f.name)) for f in dataclasses.fields(instance)}


def differing(instance: Any) -> dict[str, Any]:
    """The settings that can change a number and differ from their defaults, as plain data: what names a run."""
    return {f.name: _plain(value) for f in dataclasses.fields(instance)
            if f.metadata.get("identity", True) and (value := getattr(instance, f.name)) != f.default}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert(value, next(o for o in options if o is not type(None)), where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where} must be a list, got {value!r}.")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(v, inner, where) for v in value)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, (hint, Mapping)):
            raise UserError(f"{where} must be a table of settings, got {value!r}.")
        return value if isinstance(value, hint) else build(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{where} must be finite, got {value!r}.")
        return value
    raise UserError(f"{where} must be of type {hint.__name__}, got {value!r}.")


def _check_range(value: Any, meta: Mapping[str, Any], where: str) -> None:
    if value is None:
        return
    choices, low, high = meta.get("choices"), meta.get("low"), meta.get("high")
    if choices is not None and value not in choices:
        raise unknown("value", str(value), [str(c) for c in choices], where)
    for item in value if isinstance(value, tuple) else (value,):
        if low is not None and item < low:
            raise UserError(f"{where} must be at least {low}, got {item!r}.")
        if high is not None and item > high:
            raise UserError(f"{where} must be at most {high}, got {item!r}.")
