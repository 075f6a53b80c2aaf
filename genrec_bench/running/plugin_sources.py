"""The modules that a plug-in file imports from outside the library: found by reading, run as they were read."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

OURS = ("genrec_bench", "baselines", "__main__")
INSTALLED = ("site-packages", "dist-packages")


class BytesLoader(SourceFileLoader):
    """Runs the very bytes that were read; neither reads nor leaves a compiled file."""

    def __init__(self, name: str, path: str, data: bytes) -> None:
        super().__init__(name, path)
        self.data = data

    def get_code(self, fullname: str) -> CodeType:
        """The code of those bytes."""
        return self.source_to_code(self.data, self.path)


@dataclass(frozen=True)
class Found:
    """A module: its file and the bytes in it, both None for a folder without `__init__.py`; folders: of a package."""

    path: Path | None
    data: bytes | None
    folders: list[str] | None

    @property
    def is_source(self) -> bool:
        """Whether it is Python text, and no compiled module."""
        return self.path is not None and self.path.suffix == ".py"

    def spec(self, name: str) -> ModuleSpec:
        """How Python imports it, from these bytes where they are source."""
        if self.path is None:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = self.folders
            return spec
        loader = BytesLoader(name, str(self.path), self.data) if self.is_source else None
        return spec_from_file_location(name, self.path, loader=loader, submodule_search_locations=self.folders)


@dataclass(frozen=True)
class Sources:
    """A plug-in file as it was read, and what it imports, directly or not, anywhere in its code.

    package: the one that the file is part of, or "". modules: by full name.
    """

    path: Path
    data: bytes
    package: str
    modules: dict[str, Found] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The sha256 of the file's bytes; where it imports modules, of their names and bytes as well.

        It depends neither on where the files are nor on the order of imports. Out of reach are files that are no
        modules, such as data that a plug-in reads, and modules whose names are made up as it runs.
        """
        own = hashlib.sha256(self.data).hexdigest()
        lines = [f"{name} {hashlib.sha256(found.data).hexdigest()}" for name, found in sorted(self.modules.items())
                 if found.data is not None]
        return hashlib.sha256("\n".join([own, *lines]).encode()).hexdigest() if lines else own


def read_sources(path: Path, data: bytes) -> Sources:
    """Follow the imports of a file, those inside functions too.

    Modules beside it are found as if its folder, or that of its outermost package, came first on `sys.path`. The
    standard library, what is installed and genrec_bench itself are left out.
    """
    root, packages = path.resolve().parent, []
    while (root / "__init__.py").is_file():
        packages.insert(0, root.name)
        root = root.parent
    sources = Sources(path, data, ".".join(packages))
    todo = list(_imports(data, sources.package))
    while todo:
        *parents, last = todo.pop().split(".")
        if last == "*":  # every module of a package may be meant
            folders = [folder for found in [sources.modules.get(".".join(parents))] if found
                       for folder in found.folders or ()]
            todo += [".".join([*parents, p.stem]) for folder in folders for p in Path(folder).glob("*.py")
                     if p.stem != "__init__"]
            continue
        todo += _follow([*parents, last], root, sources.modules)
    return sources


def _follow(words: Sequence[str], root: Path, known: dict[str, Found]) -> Iterator[str]:
    """Add a module and the packages it is in, as far as they are the user's; yields what the new ones import."""
    folders: list[str] | None = [str(root), *sys.path]
    for length in range(1, len(words) + 1):
        name = ".".join(words[:length])
        if name not in known:
            found = _find(name, folders)
            if found is None:
                return
            known[name] = found
            if found.is_source:
                yield from _imports(found.data, name if found.folders is not None else name.rpartition(".")[0])
        folders = known[name].folders
        if folders is None:
            return


def _find(name: str, folders: Sequence[str]) -> Found | None:
    """The module where it is the user's own, else None."""
    top = "." not in name
    if top and (name in sys.stdlib_module_names or name in OURS):
        return None
    spec = PathFinder.find_spec(name, folders)
    if spec is None and top:  # a project that was installed to be edited
        others = (finder for finder in sys.meta_path if finder not in (PathFinder, _SERVED)
                  and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, None) for finder in others)), None)
    if spec is None:
        return None
    inside = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    places = inside or [] if spec.origin is None else [spec.origin]
    if not places or any(_installed(Path(place)) for place in places):
        return None
    if spec.origin is None:
        return Found(None, None, inside)
    path = Path(spec.origin)
    return Found(path, path.read_bytes(), inside) if path.is_file() else None


def _installed(path: Path) -> bool:
    return any(part in INSTALLED for part in path.parts) or path.is_relative_to(sysconfig.get_path("stdlib"))


def _imports(data: bytes, package: str) -> Iterator[str]:
    """Full names of whatever a source imports, `a.*` for all of a; a name may be that of no module."""
    try:
        nodes = list(ast.walk(ast.parse(data)))
    except (SyntaxError, ValueError):  # running it says where
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[:len(package.split(".")) + 1 - node.level] if node.level and package else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base and (above or not node.level):
                yield from (f"{base}.{alias.name}" for alias in node.names)
                yield base  # the last is followed first: `a.*` has to find a
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


class _Served(MetaPathFinder):
    """Imports the modules of the plug-ins that were loaded from the bytes that their digests are of."""

    def __init__(self) -> None:
        self.modules: dict[str, Found] = {}

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """Called by `import`."""
        found = self.modules.get(fullname)
        return found and found.spec(fullname)


_SERVED = _Served()


def serve(sources: Sources) -> None:
    """From now on imports give these modules too, also where others of their names, or older ones, were imported."""
    for name, found in sources.modules.items():
        if found.data is None or found.is_source:  # a compiled module can be imported once
            sys.modules.pop(name, None)
    _SERVED.modules = {**_SERVED.modules, **sources.modules}
    if _SERVED not in sys.meta_path:
        sys.meta_path.insert(0, _SERVED)
