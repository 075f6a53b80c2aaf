"""How near our numbers come to the printed ones, in one word a cell and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from genrec_bench.reporting.ledger import FOLDER, load_ledger
from genrec_bench.reporting.load import Summary
from genrec_bench.reporting.rows import Row

EXACT, STATISTICAL, DIRECTIONAL = "exact", "statistical", "directional"
NOT_REPRODUCED, NOT_COMPARABLE, NOT_RUN = "not reproduced", "not comparable", "not run"
GRADES = (EXACT, STATISTICAL, DIRECTIONAL, NOT_REPRODUCED, NOT_COMPARABLE, NOT_RUN)
ENOUGH = 5  # seeds for the grade of the spread
FEWEST = 2  # other methods of a column for the grade of the order, and at least half of them
TINY = 1e-12  # what two equal decimals may differ by in binary

READING = f"""\
Grades: {EXACT}, the printed number is within one standard error of our seeds (at least two) and half a unit of its
last digit; {STATISTICAL}, within mean ± 2 SD of at least {ENOUGH} seeds; {DIRECTIONAL}, the method stands as printed to
all others of its column that were run, at least half of those printed and {FEWEST}; else {NOT_REPRODUCED}.
{NOT_COMPARABLE.capitalize()}: data or settings are not the paper's, or seeds are missing. None of these is a test."""


@dataclass(frozen=True)
class Grade:
    """One of GRADES, or "" for what cannot be graded, and the reason in one line."""

    name: str
    why: str


@dataclass(frozen=True)
class Order:
    """How a method stands to the others of its printed column.

    others: how many are printed. known: how many of them have been run so that they can be compared. agrees: whether
    all of these stand to it as printed.
    """

    agrees: bool
    known: int
    others: int

    @property
    def enough(self) -> bool:
        """Whether so many are known that an order says something."""
        return self.known >= FEWEST and 2 * self.known >= self.others

    @property
    def text(self) -> str:
        """What is known of it; "" where there is no other method."""
        if not self.others:
            return ""
        count = f"{self.known} of the {self.others} others"
        if not self.agrees:
            return f"another order than printed among it and {count}"
        if not self.enough:
            return f"order known to {count} only"
        return f"as printed to {count}" + ("; the rest was not run, or not comparably" if self.known < self.others
                                           else "")


def grade(ours: Summary, printed: float, *, digits: int, order: Order | None = None, reason: str,
          known: Sequence[str] = ()) -> Grade:
    """How near the mean over seeds comes to a printed number of so many decimals.

    order: see `order_of`; None where it says nothing. reason: why the two cannot be compared, or "". known: entries of
    the ledger on choices of ours.
    """
    if ours.mean is None:
        return Grade(NOT_RUN, "no run stands for it")
    if reason:
        return Grade(NOT_COMPARABLE, reason)
    gap = abs(ours.mean - printed)
    if ours.sd is not None:
        near = ours.sd / math.sqrt(ours.n) + 0.5 * 10.0**-digits
        if gap <= near + TINY:
            return Grade(EXACT, f"within {near:.{digits + 1}f}, one standard error and half a printed unit")
        if ours.n >= ENOUGH and gap <= 2 * ours.sd + TINY:
            return Grade(STATISTICAL, f"within 2 SD of {ours.n} seeds")
    if order and order.agrees and order.enough:
        return Grade(DIRECTIONAL, order.text)
    choices = f"choices that may matter: ledger: {', '.join(known)}" if known else "no choice is known that may matter"
    return Grade(NOT_REPRODUCED, "; ".join(filter(None, (order.text if order else "", choices))))


def grade_count(ours: float, printed: float, *, digits: int, reason: str) -> Grade:
    """The grade of a number that has no spread, such as how many users there are: exact to the printed digits."""
    if reason:
        return Grade(NOT_COMPARABLE, reason)
    if abs(ours - printed) <= 0.5 * 10.0**-digits + TINY:
        return Grade(EXACT, "equal to the printed digits")
    return Grade(NOT_REPRODUCED, "another number")


def order_of(method: str, ours: Mapping[str, float], printed: Mapping[str, float]) -> Order:
    """How the methods of a column that have been run stand to this one, beside the printed order.

    ours, printed: method -> number. Only methods on both sides are known; a tie on either agrees with anything.
    """
    known = [m for m in ours if m in printed and m != method]
    agrees = all((ours[method] - ours[m]) * (printed[method] - printed[m]) >= 0 for m in known)
    return Order(agrees, len(known), len(printed) - (method in printed))


def known_reasons(row: Row) -> list[str]:
    """The ledger's entries on the objectives of a row, as `<objective>/<entry>`."""
    names = dict.fromkeys(name for stage in row.stages for name in stage)
    return [f"{name}/{key}" for name in names for key in _entries().get(name, ())]


@cache
def _entries() -> dict[str, tuple[str, ...]]:
    """File of the ledger -> keys of its entries."""
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return {name: tuple(entry.key for entry in method.entry)
            for name, method in zip(names, load_ledger(), strict=True)}
