"""What was read of data, kept for other processes: equal, mapped, and made again whenever anything is another."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.contracts import Instances, Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import map_arrays, write_mapped
from genrec_bench.core.registry import datasets
from genrec_bench.datasets import parsed
from genrec_bench.datasets.folder import Folder
from genrec_bench.running.plugin_checks import _equal

INTER = {"9": [3, 1, 3, 1], "10": [1, 5, 1], "a\n\u00e9": [5, 5, 5]}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Three users and four items with codes of two lengths; one item never occurs, which is noted."""
    place = tmp_path / "mine"
    place.mkdir()
    (place / "inter.json").write_text(json.dumps(INTER))
    (place / "index.json").write_text('{"1": [0, 7], "3": [4], "5": [2, 2], "8": [0, 0]}')
    (place / "title.json").write_text('{"1": "one", "3": "", "5": "five", "8": "eight"}')
    return datasets.build({"name": "folder", "path": str(place)})


def flipped(content: bytes) -> bytes:
    """With one bit of a kept title changed, which is still JSON: `one` becomes `nne`."""
    place = content.index(b'"one"') + 1
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1:]


def same(one: Interactions, other: Interactions) -> bool:
    """Whether two data are equal in every field."""
    return all(_equal(getattr(one, name), getattr(other, name)) for name in Interactions.__dataclass_fields__)


def kept(folder: Folder, place: Path) -> Interactions:
    """The data, kept below a place by whoever reads them first."""
    read = parsed.read(folder, None, place / "cache")
    read.keep(folder, None)
    return read.data


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that a folder's files are parsed."""
    calls, load = [], Folder.load
    monkeypatch.setattr(Folder, "load", lambda self, data_dir: calls.append(self.label) or load(self, data_dir))
    return calls


def test_read_once_and_mapped_ever_after(folder: Folder, tmp_path: Path, reads: list[str],
                                         capsys: pytest.CaptureFixture) -> None:
    first = kept(folder, tmp_path)
    notes = capsys.readouterr().err
    again = kept(folder, tmp_path)
    assert reads == ["mine"] and same(first, again)
    assert notes.count("note: ") == 2 and capsys.readouterr().err == notes
    for array in (again.sequences.values, again.given_codes):
        assert not array.flags.writeable and array.flags.aligned


@pytest.mark.parametrize("change", [
    lambda folder, file: replace(folder, label="yours"),
    lambda folder, file: replace(folder, codebook_size=300),
    lambda folder, file: (Path(folder.path) / "title.json").write_text('{"1": "1", "3": "3", "5": "5", "8": "8"}'),
    lambda folder, file: (Path(folder.path) / "title.json").unlink(),
    lambda folder, file: file.write_bytes(file.read_bytes()[:-400]),
    lambda folder, file: file.write_bytes(flipped(file.read_bytes())),
    lambda folder, file: file.write_bytes(b""),
    lambda folder, file: file.unlink()],
    ids=["label", "setting", "text", "no texts", "cut off", "one bit", "empty", "deleted"])
def test_read_again_where_anything_changed(change: Callable, folder: Folder, tmp_path: Path, reads: list[str]) -> None:
    kept(folder, tmp_path)
    changed = change(folder, next((tmp_path / "cache").iterdir()))
    folder = changed if isinstance(changed, Folder) else folder
    assert same(kept(folder, tmp_path), folder.load(None)) and len(reads) == 3
    assert same(kept(folder, tmp_path), folder.load(None)) and len(reads) == 4


def test_files_that_change_while_they_are_read_are_not_kept(folder: Folder, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    load, title = Folder.load, Path(folder.path) / "title.json"
    monkeypatch.setattr(Folder, "load", lambda self, data_dir: (load(self, data_dir), title.write_text(
        '{"1": "1", "3": "3", "5": "5", "8": "8"}'))[0])
    kept(folder, tmp_path)
    assert not (tmp_path / "cache").exists()


def test_bad_files_are_told_as_ever(folder: Folder, tmp_path: Path) -> None:
    (Path(folder.path) / "inter.json").write_text('{"0": [1, -5, 3]}')
    told = []
    for load in (lambda: folder.load(None), lambda: kept(folder, tmp_path)):
        with pytest.raises(UserError) as caught:
            load()
        told.append(str(caught.value))
    assert told[0] == told[1] and "item -5 is negative" in told[0]


def _many(folder: Folder, place: Path, file: Path) -> None:
    for n in range(20):
        data = kept(folder, place)
        assert data.user_ids == ("10", "9", "a\n\u00e9") and data.sequences[0].tolist() == [0, 2, 0]
        if n % 3 == 0:
            file.unlink(missing_ok=True)


def test_many_processes_read_write_and_delete_at_once(folder: Folder, tmp_path: Path) -> None:
    kept(folder, tmp_path)
    file = next((tmp_path / "cache").iterdir())
    context = multiprocessing.get_context("fork")
    walkers = [context.Process(target=_many, args=(folder, tmp_path, file)) for _ in range(4)]
    for walker in walkers:
        walker.start()
    for walker in walkers:
        walker.join()
    assert [walker.exitcode for walker in walkers] == [0] * 4
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {file.name}, "no file is left half"


def test_every_field_comes_back(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times, windows of two parts, no texts and no codes, an empty list."""
    rows = {part: Instances(np.array([0, 2]), np.array([1, 0]), [np.array([0, 1]), np.array([], dtype=np.int64)], seen,
                            np.array([1, -1], dtype=np.int8), None)
            for part, seen in (("train", None), ("test", [np.array([2]), np.array([0, 1])]))}
    data = Interactions("mine", ("u", "v", "w"), ("a", "b", "c"), [np.array([0, 1, 2])] * 3, times=[
        np.array([0.5, 1, 2])] * 3, repeats_dropped=4, rows=rows)
    monkeypatch.setattr(Folder, "load", lambda self, data_dir: data)
    kept(folder, tmp_path)
    monkeypatch.setattr(Folder, "load", None)
    read = kept(folder, tmp_path)
    assert same(read, data) and list(read.rows) == ["train", "test"] and read.times.values.dtype == np.float64


def test_an_npz_file_that_numpy_reads_too(tmp_path: Path) -> None:
    arrays = {"a": np.arange(7), "longer.name": np.arange(6.0).reshape(2, 3).T, "none": np.empty(0, dtype=np.int8),
              "b": np.arange(3, dtype=np.uint8), "c": np.arange(5)}
    write_mapped(tmp_path / "x.npz", arrays)
    held = map_arrays(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        for name, array in arrays.items():
            assert np.array_equal(file[name], array) and np.array_equal(held[name], array)
            assert held[name].dtype == array.dtype and held[name].ctypes.data % 64 == 0


def test_what_cannot_be_kept_is_read(folder: Folder, tmp_path: Path) -> None:
    """A place that is a file, and a class that no name of code stands for."""
    (tmp_path / "cache").write_text("")
    assert same(kept(folder, tmp_path), folder.load(None))
    own = type("Own", (Folder,), {"__module__": "__main__"})(path=folder.path)
    read = parsed.read(own, None, tmp_path / "other")
    read.keep(own, None)
    assert not (tmp_path / "other").exists() and same(read.data, folder.load(None))
    mine = type("Mine", (Folder,), {"source_digest": "d", "load": lambda self, data_dir: Folder.load(self, data_dir),
                                    "__module__": "mine"})(path=folder.path)
    assert parsed.read(mine, None, tmp_path / "other").path is None, "files that its own load reads are not named"
