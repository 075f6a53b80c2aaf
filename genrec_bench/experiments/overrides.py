"""Settings that are changed for a selection of runs, part by part: read from the command line, and checked."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from genrec_bench.core import registry
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.experiments.config import SECTIONS, WORDS, RunConfig
from genrec_bench.experiments.suite_files import preset_names

Overrides = dict[str, dict[str, Any]]  # {section, component or baseline: {setting: value}}


def merged(*layers: Overrides) -> Overrides:
    """Overrides where later layers win."""
    return {part: {key: value for layer in layers for key, value in layer.get(part, {}).items()}
            for part in dict.fromkeys(part for layer in layers for part in layer)}


def parse_overrides(pairs: Iterable[str]) -> Overrides:
    """`["training.epochs=5", ...]` as overrides; values are read as TOML, else as text. Raises: UserError."""
    result: Overrides = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        target, dot, key = path.strip().rpartition(".")
        if not (equals and dot and target and key):
            raise UserError(f"--set takes PART.SETTING=VALUE such as training.epochs=5, got {pair!r}.")
        check_fields(target, [key], f"--set {path.strip()}")
        result.setdefault(target, {})[key] = _value(value.strip())
    return result


def check_fields(target: str, keys: Iterable[str], where: str) -> None:
    """Refuse settings that a part has not. Raises: UserError."""
    fields = _fields_of(target)
    objective = target in registry.objectives.names()
    fields += ["weight"] * objective + ["preset"] * (objective or target in preset_names())
    for key in keys:
        if key not in fields:
            raise unknown("setting", key, fields, where)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fields_of(target: str) -> list[str]:
    """Settings of a section, component or baseline. Raises: UserError with the nearest name."""
    known = parts_known(registry.datasets)
    if target not in known:
        raise unknown("part", target, known, "--set")
    return known[target]


def parts_known(*more: registry.Registry) -> dict[str, list[str]]:
    """Settings of everything that has any: sections, components and baselines; those of all split rules are `split`'s.
    """
    kinds = (registry.tokenizers, registry.backbones, registry.objectives, registry.baselines, *more)
    classes = {**SECTIONS, **{name: kind.get(name) for kind in kinds for name in kind.names()}}
    rules = [field.name for cls in registry.splits.classes().values() for field in dataclasses.fields(cls)]
    return {"split": ["name", *dict.fromkeys(rules)],
            **{name: [field.name for field in dataclasses.fields(cls)] for name, cls in classes.items()}}


def check_space(layer: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse parts and settings that there are not; settings that go together are `a+b`. Raises: UserError."""
    parts = parts_known()
    for part, values in layer.items():
        if part not in parts:
            raise unknown("part", part, parts, where)
        fields = [*parts[part], *(["weight"] if part in registry.objectives.names() else [])]
        for name in (name for key in values for name in key.split("+")):
            if name not in fields:
                raise unknown("setting", name, fields, f"{where}.{part}")


def check_overrides(overrides: Overrides, configs: Iterable[RunConfig]) -> None:
    """Refuse a `--set` that no run reads. Raises: UserError."""
    used = set(WORDS) - {"second_stage", "negatives"}
    for config in configs:
        used |= parts_used(config)
    for target in overrides:
        if target not in used:
            raise UserError(f"--set {target}...: no run of this selection uses {target}. "
                            f"Used: {', '.join(sorted(used))}.")


def parts_used(config: RunConfig) -> set[str]:
    """The names of a run's components, and of the sections that it has."""
    parts = [config.dataset, config.tokenizer, config.backbone, config.baseline,
             *(w.objective for w in config.objectives)]
    sections = {name for name in ("training", "decoding", "negatives") if getattr(config, name) is not None}
    return {part.name for part in parts if part is not None} | sections | ({"second_stage"} if config.uses else set())
