"""Errors a user can cause: one clear message and exit code 2, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_NAMES, NEAREST_NAMES = 40, 8  # so many allowed names are all told; of more, the nearest few


class UserError(Exception):
    """Something the user can fix: a wrong name, value, file or setting.

    The message says what is wrong, where, what is allowed and the nearest match.
    """


class DoesNotFit(UserError):
    """A method that cannot run on these data, such as weights for four levels on IDs of three."""


def first_line(error: BaseException) -> str:
    """What an error says in one line; its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def nearest(wrong: str, allowed: Iterable[str]) -> str | None:
    """The allowed name most like `wrong`, or None where nothing is like it."""
    names = sorted(allowed)
    folded = {name.lower().replace("_", "-"): name for name in names}
    match = difflib.get_close_matches(wrong.lower().replace("_", "-"), folded, n=1, cutoff=0.4)
    return folded[match[0]] if match else None


def unknown(kind: str, wrong: str, allowed: Iterable[str], where: str = "") -> UserError:
    """The error for a name that does not exist: names the nearest match and what is allowed, of many the nearest."""
    names = sorted(allowed)
    match = nearest(str(wrong), names)
    hint = f" Did you mean {match!r}?" if match else ""
    place = f" in {where}" if where else ""
    told = ", ".join(names) or "none"
    if len(names) > MOST_NAMES:
        near = difflib.get_close_matches(str(wrong), names, n=NEAREST_NAMES, cutoff=0)
        told = f"{len(names)} names, such as {', '.join(near)}"
    return UserError(f"unknown {kind} {wrong!r}{place}.{hint} Allowed: {told}.")
