"""Files written whole or not at all, and what reading a damaged one may raise."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

APART = ("work", "cache", "reports")  # folders of a folder of results that hold no records
# What reading a damaged file of arrays may raise.
DAMAGED = (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError,
           RuntimeError)
# Of zip files: bytes before an entry's name, bytes of the field of long sizes, and a field of bytes without a meaning.
_LOCAL_HEADER, _ZIP64_FIELD, _FIELD, _PADDING = 30, 20, struct.Struct("<HH"), 0xD935


def dump_json(data: Any) -> str:
    """Readable JSON with sorted keys and full-precision numbers."""
    return json.dumps(data, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with unrounded numbers; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """One npz file, atomically; equal arrays in equal order give equal bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez_compressed(temporary, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_mapped(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One npz file, atomically, without compression and with its arrays at multiples of 64 bytes, for `map_arrays`.

    As numpy writes npz files, arrays begin anywhere, and a mapped one would be copied wherever it is used.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        with open(temporary, "wb") as handle:
            with zipfile.ZipFile(handle, "w") as archive:
                for name, array in arrays.items():
                    entry = zipfile.ZipInfo(f"{name}.npy")
                    begins = handle.tell() + _LOCAL_HEADER + len(entry.filename) + _ZIP64_FIELD + _FIELD.size
                    entry.extra = _FIELD.pack(_PADDING, -begins % 64) + bytes(-begins % 64)
                    with archive.open(entry, "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of such a file, read-only views of its pages, each compared with its checksum.

    Raises: what `DAMAGED` names, and whatever else bytes that are no such file may cause.
    """
    held, pages = {}, np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    with open(path, "rb") as handle, zipfile.ZipFile(handle) as archive:
        for entry in archive.infolist():
            handle.seek(entry.header_offset + _LOCAL_HEADER - _FIELD.size)
            handle.seek(sum(_FIELD.unpack(handle.read(_FIELD.size))), os.SEEK_CUR)  # over the name and extra fields
            if zlib.crc32(pages[handle.tell():handle.tell() + entry.file_size]) != entry.CRC:
                raise ValueError(f"{entry.filename} is damaged")
            if np.lib.format.read_magic(handle) != (1, 0):
                raise ValueError(f"{entry.filename} is of another format")
            shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
            begin, size = handle.tell(), dtype.itemsize * math.prod(shape)
            held[entry.filename.removesuffix(".npy")] = pages[begin:begin + size].view(dtype).reshape(shape)
    return held


def as_named(path: Path) -> Path:
    """A path in full, by the name it is given: links on the way are followed, the last one keeps its own name."""
    place = path.expanduser().absolute()
    return place.resolve() if place.name in ("", "..") else place.parent.resolve() / place.name


def canonical(data: Any) -> str:
    """JSON with sorted keys in which 1 and 1.0 are the same."""
    return json.dumps(_whole(data), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _whole(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(k): _whole(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_whole(v) for v in data]
    if isinstance(data, float) and data.is_integer():
        return int(data)
    return data
