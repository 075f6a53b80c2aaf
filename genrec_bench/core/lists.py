"""What has the same key, together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T, K = TypeVar("T"), TypeVar("K")


def grouped(items: Iterable[T], key: Callable[[T], K], value: Callable[[T], Any] = lambda item: item) -> dict[K, list]:
    """Key -> the values of the items that have it, in order of the first of each."""
    found: dict[K, list] = {}
    for item in items:
        found.setdefault(key(item), []).append(value(item))
    return found
