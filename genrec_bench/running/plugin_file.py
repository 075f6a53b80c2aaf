"""A plug-in of the user's own in a file anywhere: loaded only because it was named on the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from genrec_bench.core import registry
from genrec_bench.core.errors import UserError, nearest, unknown
from genrec_bench.objectives.base import Objective
from genrec_bench.running.plugin_sources import BytesLoader, Sources, read_sources, serve


def is_file(text: str) -> bool:
    """Whether a word names a plug-in file, `FILE.py` or `FILE.py:CLASS`, and not a registered name."""
    return text.endswith(".py") or ":" in text or "/" in text


def load_objective(text: str) -> str:
    """Run `FILE.py:CLASS`, or `FILE.py` with one objective in it, and return the name it is registered under.

    A class that registers itself keeps its name; another gets its own in snake case. A plain class without fields is
    made the frozen dataclass it has to be. `source_digest`, of the file and of the user's own modules that it imports
    (`plugin_sources`), is put on the class, so that changed code names other runs; data files are out of its reach.
    Loading a file again reads all of it again and replaces what it registered.
    Raises: UserError for a file or class that is not there, that does not run, or that takes another's name.
    """
    path, wanted = _split(text)
    sources = read_sources(path, _read(path))
    registry.objectives.names()  # ours are registered first: a name that is taken is the file's mistake
    serve(sources)
    return register_class(_class(_run(sources), path, wanted), sources.digest, str(path))


def register_class(cls: type[Objective], digest: str, where: str) -> str:
    """Register an objective of the user's and return its name; `digest` stands for its source in the names of runs.

    Raises: UserError, beginning with `where`, for a class that is no objective, that takes another's name, or whose
    source is no longer what it was when the class was first registered.
    """
    if vars(cls).get("source_digest", digest) != digest:
        raise UserError(f"{where}: the code of {cls.__name__}, or of a module that it imports, was changed after it "
                        "was imported, and what is in memory is the old one. Start Python again, or give "
                        "\"FILE.py:CLASS\", which is read anew each time.")
    if not issubclass(cls, Objective):
        raise UserError(f"{where}: {cls.__name__} is no objective. Let it inherit from "
                        "genrec_bench.objectives.base.Objective and define loss.")
    if cls.loss is Objective.loss:
        raise UserError(f"{where}: class {cls.__name__} has no loss. Define loss(self, inputs), which returns a loss a "
                        "row.")
    if "__dataclass_fields__" not in vars(cls):  # its parent may be one
        _make_dataclass(cls, where)
    name = vars(cls).get("name") or _snake_case(cls.__name__)
    try:
        registry.objectives.register(name)(cls)
    except UserError as error:
        raise UserError(f"{where}: {error} Give yours another name.") from None
    cls.source_digest = digest
    return name


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _split(text: str) -> tuple[Path, str]:
    path, _, wanted = (text, "", "") if text.endswith(".py") else text.rpartition(":")
    return Path(path).expanduser(), wanted


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        match = nearest(path.name, (p.name for p in path.parent.glob("*.py")))
        hint = f" Did you mean {path.with_name(match)}?" if match and not path.is_file() else ""
        raise UserError(f"cannot read the plug-in file {path}: {error.strerror}.{hint}") from None


def _run(sources: Sources) -> ModuleType:
    """The module, under a name that belongs to the path. Raises: UserError with file, line and error."""
    path = sources.path
    own = f"genrec_bench_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    name = f"{sources.package}.{own}" if sources.package else own  # so that relative imports find its package
    loader = BytesLoader(name, str(path), sources.data)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module  # dataclasses look their annotations up there
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, UserError):
            raise UserError(f"{path}: {error}") from None
        raise UserError(f"{path}{_line(error, path)} raises {type(error).__name__}: "
                        f"{' '.join(str(error).split())}") from None
    return module


def _line(error: BaseException, path: Path) -> str:
    """Where in the file it happened: the innermost of its own lines."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno},"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}," if lines else ""


def _class(module: ModuleType, path: Path, wanted: str) -> type[Objective]:
    """The class asked for, or the only objective of the file."""
    found = {n: c for n, c in vars(module).items() if isinstance(c, type) and c.__module__ == module.__name__}
    fitting = {n: c for n, c in found.items() if issubclass(c, Objective) and not n.startswith("_")}
    if wanted:
        if wanted in found and wanted not in fitting:
            raise UserError(f"{path}: class {wanted} is no objective. Let it inherit from "
                            "genrec_bench.objectives.base.Objective and define loss.")
        if wanted not in fitting:
            raise unknown("class", wanted, fitting, str(path))
        return fitting[wanted]
    if len(fitting) != 1:
        raise UserError(f"{path} has {len(fitting)} objectives" + (
            f": say which, {' or '.join(f'{path}:{n}' for n in sorted(fitting))}." if fitting else
            "; one is a class that inherits from genrec_bench.objectives.base.Objective and defines loss."))
    return next(iter(fitting.values()))


def _make_dataclass(cls: type, where: str) -> None:
    """In place. Raises: UserError where it has annotated fields, which the class itself must declare as settings."""
    fields = [n for n, a in vars(cls).get("__annotations__", {}).items() if "ClassVar" not in str(a)]
    if fields:
        raise UserError(f"{where}: class {cls.__name__} has the fields {', '.join(fields)} but is no dataclass. Put "
                        "@dataclass(frozen=True) above it and give each field a setting(default, doc) "
                        "(genrec_bench.core.settings).")
    dataclasses.dataclass(frozen=True)(cls)
