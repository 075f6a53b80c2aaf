"""`list`: what is there to choose from."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable

from genrec_bench.commands import common
from genrec_bench.core import registry
from genrec_bench.core.errors import unknown
from genrec_bench.experiments import suite_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `list`."""
    parser.add_argument("kind", nargs="?", help=f"one of {', '.join(KINDS)}; without it, all")
    common.add_results(parser)


def run(args: argparse.Namespace) -> int:
    """Print names with one line about each; settings of plug-ins with their defaults."""
    if args.kind is not None and args.kind not in KINDS:
        raise unknown("kind", args.kind, KINDS, "list")
    for kind in KINDS if args.kind is None else [args.kind]:
        if args.kind is None:
            print(f"{kind}:")
        for name, about, options in KINDS[kind]():
            print(f"  {name:<16} {about}" if args.kind is None else f"{name:<16} {about}")
            for option in options if args.kind else ():
                print(f"    {option}")
    sys.stdout.flush()
    return 0


Rows = list[tuple[str, str, list[str]]]


def _plugins(kind: registry.Registry) -> Callable[[], Rows]:
    return lambda: [(name, (kind.get(name).__doc__ or "").strip().splitlines()[0], _settings(kind.get(name)))
                    for name in kind.names()]


def _settings(cls: type) -> list[str]:
    return [f"{f.name} = {'(required)' if f.default is dataclasses.MISSING else f.default!r}"
            f"  {f.metadata.get('doc', '')}" + (f" ({', '.join(map(str, choices))})"
                                                if (choices := f.metadata.get("choices")) else "")
            for f in dataclasses.fields(cls)]


def _objectives() -> Rows:
    """Objectives with their presets, which a row of a suite or `--set NAME.preset=...` takes."""
    return [(name, about, options + [f"preset {preset}: " + ", ".join(f"{k} = {v!r}" for k, v in values.items())
                                     for preset, values in suite_files.load_presets(name).items() if values])
            for name, about, options in _plugins(registry.objectives)()]


def _suites() -> Rows:
    return [(name, suite_files.load_suite(name)["suite"]["title"], []) for name in suite_files.suite_names()]


def _profiles() -> Rows:
    return [(name, suite_files.load_profile(name)["title"], []) for name in suite_files.profile_names()]


def _baselines() -> Rows:
    """Baselines with what the suites' rows have otherwise, as their files say."""
    return [(name, about, options + [f"suites: {key} = {value!r}" for key, value in
                                     suite_files.load_baseline(name).get("settings", {}).items()])
            for name, about, options in _plugins(registry.baselines)()]


KINDS: dict[str, Callable[[], Rows]] = {
    "datasets": _plugins(registry.datasets), "splits": _plugins(registry.splits),
    "tokenizers": _plugins(registry.tokenizers), "backbones": _plugins(registry.backbones), "objectives": _objectives,
    "metrics": _plugins(registry.metrics), "suites": _suites, "baselines": _baselines, "profiles": _profiles,
}
