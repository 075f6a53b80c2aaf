"""The files that declare runs (suites, profiles, baselines), read strictly: a wrong key names its file.

What is read stays plain data, as in the file; the dataclasses here say what a file may hold.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from genrec_bench import settings
from genrec_bench.errors import UserError, unknown
from genrec_bench.settings import setting

_HERE = Path(__file__).resolve().parent
FOLDERS = {"suite": _HERE / "suites", "profile": _HERE / "profiles", "baseline": _HERE.parent / "baselines" / "configs"}
REQUIRED: Any = dataclasses.MISSING
Data = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SuiteHead:
    """`[suite]`: a grid of rows, or with `includes` the suites it stands for."""

    name: str = setting(REQUIRED, "the file's name without .toml")
    title: str = setting(REQUIRED, "one line for people")
    paper: str | None = setting(None, "whose printed numbers stand beside ours")
    includes: tuple[str, ...] = setting((), "suites this one stands for; it then has no rows of its own")


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """Where the paper prints this method."""

    backbone: str = setting(REQUIRED, "as the paper's file spells it")
    method: str = setting(REQUIRED, "as the paper's file spells it")


@dataclasses.dataclass(frozen=True)
class SuiteRow:
    """`[[row]]`: a baseline, or a backbone trained with objectives."""

    baseline: str | None = setting(None, "name of a baseline file")
    label: str | None = setting(None, "name in tables, of a generative row")
    backbone: dict | None = setting(None, "{ name = ..., <setting> = ... }")
    objective: tuple[dict, ...] = setting((), "[{ name = ..., <setting> = ... }, ...], each with an optional weight")
    tokenizer: dict | None = setting(None, "{ name = ..., <setting> = ... }; absent = the dataset's own")
    paper_row: PaperRow | None = setting(None, "where the paper prints it")


@dataclasses.dataclass(frozen=True)
class SuiteFile:
    """A suite file."""

    suite: SuiteHead = setting(REQUIRED, "what it is")
    row: tuple[SuiteRow, ...] = setting((), "its methods")


@dataclasses.dataclass(frozen=True)
class ProfileFile:
    """A profile file; the parts that settings name are checked where runs are planned."""

    title: str = setting(REQUIRED, "one line for people")
    seeds: tuple[int, ...] = setting(REQUIRED, "seeds of every run", low=0)
    datasets: tuple[str, ...] = setting(REQUIRED, "datasets where the user names none")
    settings: dict = setting(None, "{ <section, component or baseline> = { <setting> = ... } }")
    datasets_settings: dict = setting(None, "{ <dataset> = like settings }")


@dataclasses.dataclass(frozen=True)
class BaselineFile:
    """A baseline file: a system with settings, and where each comes from."""

    name: str = setting(REQUIRED, "the file's name without .toml")
    label: str = setting(REQUIRED, "name in tables; {setting} stands for a setting's value")
    system: str = setting(REQUIRED, "name of the code that runs it")
    seeded: bool = setting(REQUIRED, "false = the numbers are equal at every seed")
    settings: dict = setting(REQUIRED, "settings of the system")
    profiles: dict = setting(None, "{ <profile> = settings that differ there }")
    sources: dict = setting(None, "{ <setting> = where its value comes from }")


def suite_names(folder: Path | None = None) -> list[str]:
    """Names of the suite files, sorted."""
    return _names("suite", folder)


def profile_names(folder: Path | None = None) -> list[str]:
    """Names of the profile files, sorted."""
    return _names("profile", folder)


def baseline_names(folder: Path | None = None) -> list[str]:
    """Names of the baseline files, sorted."""
    return _names("baseline", folder)


def load_suite(name: str, folder: Path | None = None) -> Data:
    """A suite file as data, `suite` and `row` as in the file.

    Raises: UserError with the nearest name, or naming file and place of what is wrong in it.
    """
    path, data = _read("suite", name, folder)
    if "suite" in data:
        _build(SuiteHead, data["suite"], f"{path}, [suite]")
    rows = data.get("row", [])
    if not isinstance(rows, list):
        raise UserError(f"{path}: row is one table. Write [[row]] with two brackets.")
    for number, row in enumerate(rows, 1):
        _check_row(row, f"{path}, row {number}")
    _build(SuiteFile, {**data, "row": []} if "row" in data else data, str(path))
    head = data["suite"]
    _check_name(path, head["name"])
    for part in head.get("includes", ()):
        if part not in suite_names(folder):
            raise unknown("suite", part, suite_names(folder), f"{path}, includes")
        if "includes" in _read("suite", part, folder)[1].get("suite", {}):
            raise UserError(f"{path}, includes: {part!r} includes suites itself. Name those suites here instead.")
    if bool(rows) == bool(head.get("includes")):
        raise UserError(f"{path}: a suite has either [[row]] tables or includes, this one has "
                        f"{'both' if rows else 'neither'}.")
    return data


def load_profile(name: str, folder: Path | None = None) -> Data:
    """A profile file as data. Raises: UserError with the nearest name, or naming the file and what is wrong in it."""
    path, data = _read("profile", name, folder)
    _build(ProfileFile, data, str(path))
    for key in ("seeds", "datasets"):
        if not data[key]:
            raise UserError(f"{path}: {key} is empty. Give it at least one.")
    _check_tables(data.get("settings", {}), f"{path}, settings")
    _check_tables(data.get("datasets_settings", {}), f"{path}, datasets_settings")
    for dataset, values in data.get("datasets_settings", {}).items():
        _check_tables(values, f"{path}, datasets_settings.{dataset}")
    return data


def load_baseline(name: str, folder: Path | None = None) -> Data:
    """A baseline file as data. Raises: UserError with the nearest name, or naming the file and what is wrong in it."""
    path, data = _read("baseline", name, folder)
    _build(BaselineFile, data, str(path))
    _check_name(path, data["name"])
    _check_tables(data.get("profiles", {}), f"{path}, profiles")
    for profile in data.get("profiles", {}):
        if profile not in profile_names():
            raise unknown("profile", profile, profile_names(), f"{path}, profiles")
    return data


def baseline_label(file: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """A baseline's row name; `{setting}` in the file's label stands for the setting's value. Raises: UserError."""
    try:
        return file["label"].format_map({k: str(v).replace("_", " ") for k, v in values.items()})
    except KeyError as error:
        raise unknown("setting", str(error.args[0]), values, f"the label of baseline {file['name']}") from None
    except (ValueError, IndexError, AttributeError):
        raise UserError(f"the label of baseline {file['name']}, {file['label']!r}, is malformed. Write {{setting}} for "
                        "a setting's value, and nothing else in braces.") from None


def _names(kind: str, folder: Path | None) -> list[str]:
    return sorted(path.stem for path in (folder or FOLDERS[kind]).glob("*.toml"))


def _read(kind: str, name: str, folder: Path | None) -> tuple[Path, Data]:
    names = _names(kind, folder)
    if name not in names:
        raise unknown(kind, name, names)
    path = (folder or FOLDERS[kind]) / f"{name}.toml"
    return path, _parsed(path)


@cache
def _parsed(path: Path) -> Data:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML ({error}). Mend it or remove it.") from None


def _build(cls: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a table, got {value!r}.")
    return settings.build(cls, value, where)


def _check_row(row: Any, where: str) -> None:
    if isinstance(row, dict) and "paper_row" in row:
        _build(PaperRow, row["paper_row"], f"{where}, paper_row")
    built = _build(SuiteRow, row, where)
    if built.baseline is not None:
        extra = sorted(set(row) - {"baseline", "paper_row"})
        if extra:
            raise UserError(f"{where}: a row with a baseline has no {', '.join(extra)}. A baseline's settings stand in "
                            "its own file.")
        return
    missing = [key for key in ("label", "backbone", "objective") if not row.get(key)]
    if missing:
        raise UserError(f"{where} needs a value for {', '.join(missing)} (or, alone, for baseline).")
    specs = [("backbone", built.backbone), *(("objective", spec) for spec in built.objective)]
    for key, spec in specs if built.tokenizer is None else [*specs, ("tokenizer", built.tokenizer)]:
        if not isinstance(spec.get("name"), str):
            raise UserError(f'{where}, {key}: needs a name, such as {{ name = "..." }}.')


def _check_tables(tables: Mapping[str, Any], where: str) -> None:
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise UserError(f"{where}.{key} must be a table of settings, got {value!r}.")


def _check_name(path: Path, name: str) -> None:
    if name != path.stem:
        raise UserError(f"{path}: name = {name!r} differs from the file's name. Write name = {path.stem!r}.")
