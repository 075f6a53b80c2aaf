"""Plug-ins in a user's own file anywhere: loaded only because the file was named on the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from genrec_bench.core import registry
from genrec_bench.core.errors import UserError, nearest, unknown
from genrec_bench.core.registry import Registry
from genrec_bench.experiments.config import WORDS
from genrec_bench.objectives.base import Objective
from genrec_bench.running.plugin_sources import BytesLoader, Sources, read_sources, serve


def is_file(text: str) -> bool:
    """Whether a word names a plug-in file, `FILE.py` or `FILE.py:NAME`, and not a registered name."""
    return text.endswith(".py") or ":" in text or "/" in text


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A plug-in file that was run. registered: the classes that it registered, each with its kind."""

    sources: Sources
    module: ModuleType
    registered: Mapping[type, Registry]

    @property
    def path(self) -> Path:
        """The file."""
        return self.sources.path


def load_plugins(texts: Iterable[str]) -> None:
    """Load the plug-in files of a command. Raises: UserError, also for two files whose modules of one name differ.

    Such a module could be imported by one of the files alone, and the other would silently run with it.
    """
    known: dict[str, tuple[str, bytes | None]] = {}
    for text in texts:
        for name, found in load_plugin(text).sources.modules.items():
            other, data = known.setdefault(name, (text, found.data))
            if data != found.data:
                raise UserError(f"{other} and {text} import different modules of the name {name}. Rename one.")


def load_plugin(text: str) -> Loaded:
    """Run `FILE.py` and register what it offers; with `FILE.py:NAME` NAME is among it, as in `load_one`.

    Every class that is registered as the file runs, of whatever kind, in the file or in a module of the user's that it
    imports, gets `source_digest`, so that changed code names other runs; data files are out of its reach. Loading a
    file again reads all of it again and replaces what it registered.
    Raises: UserError for a file that is not there, does not run, registers nothing, or takes another's name.
    """
    path, wanted = _split(text)
    loaded = _load(path)
    if wanted:
        _pick(loaded, wanted)
    elif not loaded.registered:
        raise UserError(f"{path} registers nothing. Put a decorator such as @metrics.register(\"my_metric\") "
                        "(genrec_bench.core.registry) above each class.")
    return loaded


def load_one(text: str, kind: Registry | None = None) -> str:
    """Run `FILE.py:NAME`, or `FILE.py` with one plug-in in it, and return the name it is registered under.

    NAME is a class or what it is registered as. kind: what it must be. An objective need not register itself: it then
    gets its class's name in snake case, and a plain class without fields is made the frozen dataclass it has to be.
    Raises: UserError as `load_plugin` does, and for a class that is not there or of another kind.
    """
    path, wanted = _split(text)
    return _pick(_load(path), wanted, kind)


def load_objective(text: str) -> str:
    """`load_one` for an objective."""
    return load_one(text, registry.objectives)


def _load(path: Path) -> Loaded:
    sources = read_sources(path, _read(path))
    before = {kind: kind.classes() for kind in registry.KINDS}  # ours come first: a taken name is the file's mistake
    serve(sources)
    module = _run(sources)
    registered = {cls: kind for kind in registry.KINDS for name, cls in kind.classes().items()
                  if before[kind].get(name) is not cls}
    for cls, kind in registered.items():
        _check_name(cls.name, kind, str(path))
        cls.source_digest = sources.digest
    return Loaded(sources, module, registered)


def _pick(loaded: Loaded, wanted: str, kind: Registry | None = None) -> str:
    """The name of one of a file's plug-ins; "" = the only one. Raises: UserError."""
    path, what = loaded.path, kind.kind if kind else "plug-in"
    own = {n: c for n, c in vars(loaded.module).items()
           if isinstance(c, type) and c.__module__ == loaded.module.__name__}
    fitting = {c.__name__: c for c, of in loaded.registered.items() if kind in (None, of)}
    if kind in (None, registry.objectives):
        fitting |= {n: c for n, c in own.items() if issubclass(c, Objective) and not n.startswith("_")}
    if not wanted and len(fitting) != 1:
        raise UserError(f"{path} has {len(fitting)} {what}s" + (
            f": say which, {' or '.join(f'{path}:{n}' for n in sorted(fitting))}." if fitting else
            f"; one is a class that {_remedy(kind)}."))
    names = {**{c.name: c for c in fitting.values() if c in loaded.registered}, **fitting}
    if wanted and wanted not in names:
        raise UserError(f"{path}: class {wanted} is no {what}; one is a class that {_remedy(kind)}.") \
            if wanted in own else unknown("class", wanted, fitting, str(path))
    cls = names[wanted] if wanted else next(iter(fitting.values()))
    return register_class(cls, loaded.sources.digest, str(path)) if issubclass(cls, Objective) else cls.name


def _remedy(kind: Registry | None) -> str:
    objective = "inherits from genrec_bench.objectives.base.Objective and defines loss"
    return objective if kind is registry.objectives else \
        f"registers itself, such as with @metrics.register(\"my_metric\"), or {objective}"


def _check_name(name: str, kind: Registry, where: str) -> None:
    """`--set NAME.setting=...` and `check NAME` tell parts by their names alone. Raises: UserError."""
    others = [other.kind for other in registry.KINDS if other is not kind and name in other.names()]
    if others or name in WORDS:
        raise UserError(f"{where}: {kind.kind} {name!r} has the name of a {(others or ['section of settings'])[0]}. "
                        "Give yours another name.")


def register_class(cls: type[Objective], digest: str, where: str) -> str:
    """Register an objective of the user's and return its name; `digest` is its source's part of the names of runs.

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
        raise UserError(f"{where}: {error}") from None
    _check_name(name, registry.objectives, where)
    cls.source_digest = digest
    return name


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _split(text: str) -> tuple[Path, str]:
    path, _, wanted = text.rpartition(":") if ":" in text and not text.endswith(".py") else (text, "", "")
    return Path(path).expanduser(), wanted


def _read(path: Path) -> bytes:
    if path.is_file() and path.suffix != ".py":
        raise UserError(f"a plug-in is a Python file, FILE.py or FILE.py:NAME, and not {path}.")
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
            raise UserError(f"{path}{_line(error, path).rstrip(',')}: {error}") from None
        raise UserError(f"{path}{_line(error, path)} raises {type(error).__name__}: "
                        f"{' '.join(str(error).split())}") from None
    return module


def _line(error: BaseException, path: Path) -> str:
    """Where in the file it happened: the innermost of its own lines."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno},"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}," if lines else ""


def _make_dataclass(cls: type, where: str) -> None:
    """In place. Raises: UserError where it has annotated fields, which the class itself must declare as settings."""
    fields = [n for n, a in vars(cls).get("__annotations__", {}).items() if "ClassVar" not in str(a)]
    if fields:
        raise UserError(f"{where}: class {cls.__name__} has the fields {', '.join(fields)} but is no dataclass. Put "
                        "@dataclass(frozen=True) above it and give each field a setting(default, doc) "
                        "(genrec_bench.core.settings).")
    dataclasses.dataclass(frozen=True)(cls)
