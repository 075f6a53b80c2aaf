"""The files that declare runs (suites, profiles, baselines), read strictly: a wrong key names its file.

What is read stays plain data, as in the file; `file_forms` says what a file may hold.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError, nearest, unknown
from genrec_bench.core.seeds import check_seeds
from genrec_bench.experiments.file_forms import (
    BaselineFile,
    FamilyRow,
    PaperRow,
    ProfileFile,
    SuiteFile,
    SuiteHead,
    SuiteRow,
    SweepRow,
)

_HERE = Path(__file__).resolve().parent
FOLDERS = {**{kind: _HERE / f"{kind}s" for kind in ("suite", "profile", "preset", "paper")},
           "baseline": _HERE.parents[1] / "baselines" / "configs"}
LISTS = ("row", "sweep", "family", "block")  # tables of a suite file that are written [[...]]
STAGE = ("objective", "continues", "decoding")  # what a first stage may say
Data = dict[str, Any]


def suite_names(folder: Path | None = None) -> list[str]:
    """Names of the suite files, sorted."""
    return _names("suite", folder)


def stamp(name: str) -> int:
    """When a user's own suite file was changed, to know when to read it again; 0 for a suite of ours."""
    return _own_file(name).stat().st_mtime_ns if is_file(name) else 0


def is_file(name: str) -> bool:
    """Whether a suite is named by the path of a user's own file."""
    return name.endswith(".toml") or Path(name).name != name


def suite_path(name: str) -> Path:
    """The file of a suite. Raises: UserError where there is none."""
    return _read("suite", name, None)[0]


def _own_file(name: str) -> Path:
    """A user's suite file. Raises: UserError where it is not there, or is called like a suite of ours."""
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        match = nearest(path.name, (p.name for p in path.parent.glob("*.toml")))
        hint = f" Did you mean {Path(name).with_name(match)}?" if match else ""
        raise UserError(f"there is no suite file {name}.{hint}")
    if path.stem in suite_names() and path.parent != FOLDERS["suite"]:
        raise UserError(f"{name}: a suite of the name {path.stem!r} is there already. Give the file another name.")
    return path


def profile_names(folder: Path | None = None) -> list[str]:
    """Names of the profile files, sorted."""
    return _names("profile", folder)


def load_suite(name: str, folder: Path | None = None) -> Data:
    """A suite file as data, `suite` and `row`; sweeps are written out as rows and presets as settings.

    name: of a suite, or the path of a user's own file, which ends in .toml.
    Raises: UserError with the nearest name, or naming file and place of what is wrong in it.
    """
    path, data = _read("suite", name, folder)
    if "suite" in data:
        _build(SuiteHead, data["suite"], f"{path}, [suite]")
    _check_lists(path, data, LISTS)
    _build(SuiteFile, {k: [] if k in LISTS else v for k, v in data.items()}, str(path))
    rows = [_checked(row, f"{path}, row {number}") for number, row in enumerate(data.get("row", []), 1)]
    for number, sweep in enumerate(data.get("sweep", []), 1):
        rows += _swept(sweep, f"{path}, sweep {number}")
    for number, family in enumerate(data.get("family", []), 1):
        _check_family(family, rows, f"{path}, family {number}")
    _check_space(data.get("tune", {}), f"{path}, tune", bool(rows))
    labels = [row["label"] for row in rows if "label" in row]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f"{path}: two rows have the label {twice[0]!r}. Labels tell rows apart.")
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
    return {**{k: v for k, v in data.items() if k != "sweep"}, **({"row": rows} if rows else {})}


def preset_names(folder: Path | None = None) -> list[str]:
    """The objectives and sections that have a file of presets, sorted."""
    return _names("preset", folder)


def load_presets(part: str, folder: Path | None = None) -> Data:
    """The presets of an objective or a section, `{preset: {setting: value}}`; "paper", which undoes the others, is
    always there."""
    data = _read("preset", part, folder)[1] if part in preset_names(folder) else {}
    return {"paper": {}, **data}


def with_preset(part: str, spec: Mapping[str, Any], where: str) -> Data:
    """The settings of an objective or a section with their preset written out; its own override it.

    Raises: UserError for an unknown preset.
    """
    values = dict(spec)
    preset = values.pop("preset", None)
    if preset is None:
        return values
    presets = load_presets(part)
    if not isinstance(preset, str) or preset not in presets:
        raise unknown("preset", str(preset), presets, f"{where}, {part}")
    return {**presets[preset], **values}


def paper_names() -> list[str]:
    """Names of the papers that have a file, sorted."""
    return _names("paper", None)


def paper_table(name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV file about a paper, such as its printed cells. Raises: UserError for other columns."""
    path = FOLDERS["paper"] / f"{name}.csv"
    lines = _csv_lines(path)
    if wrong := [line for line in lines if tuple(line) != tuple(columns)]:
        raise UserError(f"{path}: a line has other columns than {','.join(columns)}: {wrong[0]}.")
    return lines


@cache
def _csv_lines(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def best_values(paper: str, dataset: str, row: Mapping[str, Any]) -> dict[str, float]:
    """What the paper's table of best settings that a row names says of it on a dataset (our name): setting -> value.

    Empty where the row names none, or the table says nothing of the dataset.
    """
    if not row.get("best"):
        return {}
    data = _read("paper", paper, None)[1]
    best, only = row["best_row"], row.get("best_only")
    place = str(row["best"]), data["datasets"].get(dataset), best["backbone"], best["method"]
    found = {data["best_settings"][line["metric"]]: float(line["value"])
             for line in _csv_lines(FOLDERS["paper"] / f"{paper}.csv")
             if (line["table"], line["dataset"], line["backbone"], line["method"]) == place}
    return {name: value for name, value in found.items() if only in (None, name)}


def load_profile(name: str, folder: Path | None = None) -> Data:
    """A profile file as data. Raises: UserError with the nearest name, or naming the file and what is wrong in it."""
    path, data = _read("profile", name, folder)
    _check_profile(path)
    return data


def undecided(profile: str) -> str:
    """Why runs of a profile answer no claim of a paper, or "" where they may; a profile without a file may."""
    return load_profile(profile).get("undecided", "") if profile in profile_names() else ""


def untested_profiles() -> tuple[str, ...]:
    """The profiles whose numbers mean nothing."""
    return tuple(name for name in profile_names() if not load_profile(name).get("tested", True))


@cache
def _check_profile(path: Path) -> None:
    """Once a file, as it is read once: every row of a suite asks for its profile."""
    data = _parsed(path)
    _build(ProfileFile, data, str(path))
    for key in ("seeds", "datasets"):
        if not data[key]:
            raise UserError(f"{path}: {key} is empty. Give it at least one.")
    check_seeds(data["seeds"], f"{path}, seeds")
    for part in ("settings", "trials", "datasets_settings"):
        _check_tables(data.get(part, {}), f"{path}, {part}")
    for dataset, values in data.get("datasets_settings", {}).items():
        _check_tables(values, f"{path}, datasets_settings.{dataset}")


def load_baseline(name: str, folder: Path | None = None) -> Data:
    """The file of a registered baseline as data, {} where it has none. Raises: UserError naming what is wrong in it."""
    if name not in _names("baseline", folder):
        return {}
    path, data = _read("baseline", name, folder)
    _build(BaselineFile, data, str(path))
    _check_tables(data.get("profiles", {}), f"{path}, profiles")
    for profile in data.get("profiles", {}):
        if profile not in profile_names():
            raise unknown("profile", profile, profile_names(), f"{path}, profiles")
    return data


def _names(kind: str, folder: Path | None) -> list[str]:
    return sorted(path.stem for path in (folder or FOLDERS[kind]).glob("*.toml"))


def _read(kind: str, name: str, folder: Path | None) -> tuple[Path, Data]:
    if kind == "suite" and is_file(name):
        path = _own_file(name)
        return path, _parsed(path, stamp(name))
    path = (folder or FOLDERS[kind]) / f"{name}.toml"
    if path.stem != name or not path.is_file():
        raise unknown(kind, name, _names(kind, folder))
    return path, _parsed(path)


@cache
def _parsed(path: Path, stamp: int = 0) -> Data:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML ({error}). Fix it or remove it.") from None


def _build(cls: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a table, got {value!r}.")
    return settings.build(cls, value, where)


def _checked(row: Any, where: str, cls: type = SuiteRow) -> Data:
    """A row that is whole, with its presets written out. Raises: UserError."""
    for key in ("paper_row", "best_row"):
        if isinstance(row, dict) and key in row:
            _build(PaperRow, row[key], f"{where}, {key}")
    built = _build(cls, row, where)
    if built.baseline is not None:
        extra = sorted(set(row) - {"baseline", "paper_row", "grid"})
        if extra:
            raise UserError(f"{where}: a row with a baseline has no {', '.join(extra)}. A baseline's settings are in "
                            "its own file.")
        return row
    missing = [key for key in ("label", "backbone", "objective") if not row.get(key)]
    if missing:
        raise UserError(f"{where} needs a value for {', '.join(missing)} (or, alone, for baseline).")
    if built.best is not None and built.paper_row is None and built.best_row is None:
        raise UserError(f"{where}: best names a table of the paper, so it needs a paper_row or a best_row.")
    stage = dict(row.get("first_stage") or {})
    _check_stage(stage, built.first_stage is not None, where)
    specs = [("backbone", built.backbone), *(("objective", spec) for spec in (*built.objective,
                                                                              *stage.get("objective", ())))]
    for key, spec in specs if built.tokenizer is None else [*specs, ("tokenizer", built.tokenizer)]:
        if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
            raise UserError(f'{where}, {key}: needs a name, such as {{ name = "..." }}.')
    whole = {**row, "objective": _written_out(row["objective"], where)}
    whole |= {part: with_preset(part, row[part], where) for part in ("training", "decoding") if part in row}
    if "best" in row:
        whole.setdefault("best_row", row.get("paper_row"))
    if stage:
        whole["first_stage"] = {**stage, "objective": _written_out(stage["objective"], where)}
    return whole


def _written_out(specs: list[Data], where: str) -> list[Data]:
    """The specs of objectives without presets."""
    return [with_preset(spec["name"], spec, where) for spec in specs]


def _check_family(family: Any, rows: list[Data], where: str) -> None:
    """Check that every row a family names is a row of the suite on one of its backbones. Raises: UserError."""
    built = _build(FamilyRow, family, where)
    names = {row["label"].partition(" + ")[2] for row in rows
             if "label" in row and row["backbone"]["name"] in built.backbones}
    for name in built.rows:
        if name not in names:
            raise unknown("row", name, names, f"{where}, rows")
    references = {*names, *(row["baseline"] for row in rows if "baseline" in row)} - set(built.rows)
    if built.against not in references:
        raise unknown("row", built.against, references, f"{where}, against")
    if not re.fullmatch(r"[a-z_]+@[1-9][0-9]*", built.metric):
        raise UserError(f"{where}: metric {built.metric!r} is not a name with a length, such as 'ndcg@10'.")


def _check_space(space: Mapping[str, Any], where: str, has_rows: bool) -> None:
    """Check the form of a search space; the parts that it names are checked where trials are planned."""
    if space and not has_rows:
        raise UserError(f"{where}: this suite has no rows. The search space stands in the suite that has them.")
    check_form(space, where)


def check_form(space: Mapping[str, Any], where: str) -> None:
    """Check that a search space lists values of settings, part by part. Raises: UserError."""
    _check_tables(space, where)
    for part, values in space.items():
        for key, tried in values.items():
            together = key.count("+") + 1
            if not isinstance(tried, list) or not tried:
                raise UserError(f"{where}.{part}.{key}: write the values to try as a list, such as [1, 2].")
            if together > 1 and not all(isinstance(v, list) and len(v) == together for v in tried):
                raise UserError(f"{where}.{part}.{key}: each value is a list of {together}, one for each setting.")


def _check_stage(stage: Data, given: bool, where: str) -> None:
    for key in stage:
        if key not in STAGE:
            raise unknown("setting", key, STAGE, f"{where}, first_stage")
    listed = isinstance(stage.get("objective"), list) and stage["objective"]
    if given and not (listed and isinstance(stage.get("continues", True), bool)):
        raise UserError(f'{where}, first_stage: write {{ objective = [{{ name = "..." }}], continues = true }}.')


def _swept(sweep: Any, where: str) -> list[Data]:
    """The rows of a sweep, in the order of its file. Raises: UserError."""
    whole = _checked(sweep, where, SweepRow)
    base = {k: v for k, v in whole.items() if k != "vary"}
    rows = []
    if not whole.get("vary"):
        raise UserError(f"{where}: vary is missing. Name the settings that are varied, and their values.")
    for place, values in whole["vary"].items():
        if not isinstance(values, list):
            raise UserError(f"{where}, vary: {place} needs a list of values.")
        for value in values:
            name = place.rpartition(".")[2]
            rows.append(_placed(base, place.split("."), value, where)
                        | {"label": f"{whole['label']}, {name} = {value:g}" if isinstance(value, float)
                           else f"{whole['label']}, {name} = {value}"})
    return rows


def _placed(data: Any, keys: list[str], value: Any, where: str) -> Any:
    """A copy of nested data with one value changed."""
    head, rest = keys[0], keys[1:]
    if isinstance(data, list):
        if not head.isdecimal() or int(head) >= len(data):
            raise UserError(f"{where}, vary: there is no number {head!r} in a list of {len(data)}.")
        return [_placed(item, rest, value, where) if n == int(head) else item for n, item in enumerate(data)]
    return {**data, head: _placed(data.get(head, {}), rest, value, where) if rest else value}


def _check_lists(path: Path, data: Data, keys: Sequence[str]) -> None:
    for key in keys:
        if not isinstance(data.get(key, []), list):
            raise UserError(f"{path}: {key} is one table. Write [[{key}]] with two brackets.")


def _check_tables(tables: Mapping[str, Any], where: str) -> None:
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise UserError(f"{where}.{key} must be a table of settings, got {value!r}.")


def _check_name(path: Path, name: str) -> None:
    if name != path.stem:
        raise UserError(f"{path}: name = {name!r} differs from the file's name. Write name = {path.stem!r}.")
