"""Arms run in turn, their outputs compared first; speeds and ratios as medians with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Clock = Callable[[], float]


class Unequal(Exception):
    """Two arms that should do the same work gave different outputs: there is nothing to time."""


@dataclass(frozen=True)
class Arm:
    """One way to do a piece of work.

    run: does it once and returns what it made. units: users (or samples) that one call serves. calls: calls in one
    timing, more than 1 where one call is too short to be timed.
    """

    name: str
    run: Callable[[], Any]
    units: float
    calls: int = 1


@dataclass(frozen=True)
class Goal:
    """What the ratio of our fastest arm to the other side's fastest has to reach (target), and what would be better.

    at_most: the ratio is then a cost, the time of our arm in times of the other, and must not be above.
    """

    target: float | None = None
    aim: float | None = None
    at_most: bool = False


@dataclass(frozen=True)
class Row:
    """One number of the table. low, high: least and most over the repeats, equal to `value` where it is counted."""

    benchmark: str
    case: str
    quantity: str
    value: float
    low: float
    high: float
    unit: str
    threads: int
    target: float | None = None
    aim: float | None = None
    at_most: bool = False
    note: str = ""
    allocator: str = "keeps"

    @property
    def verdict(self) -> str:
        """"MISSED" (a target), "target reached", "aim missed" or "aim reached"; empty where nothing was aimed at."""
        sign = -1.0 if self.at_most else 1.0
        if self.aim is not None and sign * self.value >= sign * self.aim:
            return "aim reached"
        if self.target is None:
            return "" if self.aim is None else "aim missed"
        return "target reached" if sign * self.value >= sign * self.target else "MISSED"


@dataclass(frozen=True)
class Products:
    """Matrix products (rows, n) x (n, m) that a network is made of: how many rows at a time, and its (n, m).

    precision: what they compute in. aim: the percentage of their rate that the network should reach.
    """

    rows: int
    shapes: tuple[tuple[int, int], ...]
    precision: str = "float32"
    aim: float | None = None


@dataclass(frozen=True)
class Case:
    """Arms that do the same work, the first of them ours, and what is wanted of our fastest beside each of the others.

    equal: given every arm's output in order, raises `Unequal` where they differ; may return rows about differences that
    are allowed. own: how many arms are ours. goal: of our fastest arm's ratio to the fastest of the others. after: more
    rows from the median seconds a unit of every arm. threads: the numbers of threads it is measured with. plainly: it
    is also measured on one thread with the allocator as it is, without the goal. products: the matrix products of the
    first arm's network; where they are given, its multiply-adds are counted, set beside what such products reach, and
    its time is split by kind.
    """

    benchmark: str
    name: str
    arms: tuple[Arm, ...]
    equal: Callable[..., list[Row] | None]
    own: int = 1
    unit: str = "users"
    goal: Goal | None = None
    note: str = ""
    after: Callable[[list[float]], list[Row]] | None = None
    threads: tuple[int, ...] = (1,)
    plainly: bool = False
    products: Products | None = None

    def fact(self, quantity: str, value: float, unit: str, *, threads: int = 1, note: str = "") -> Row:
        """A row of this case for a number that is counted, or of one measurement."""
        return Row(self.benchmark, self.name, quantity, value, value, value, unit, threads, note=note)


def seconds_per_unit(arms: Sequence[Arm], clock: Clock, repeats: int) -> np.ndarray:
    """(repeats, arms) seconds a unit; the arms run in turn A B A B, so that a slow minute meets all of them."""
    taken = np.empty((repeats, len(arms)))
    for repeat in range(repeats):
        for column, arm in enumerate(arms):
            began = clock()
            for _ in range(arm.calls):
                arm.run()
            taken[repeat, column] = (clock() - began) / (arm.calls * arm.units)
    return taken


def measure(case: Case, clock: Clock, *, repeats: int, threads: int) -> list[Row]:
    """Compare the outputs of all arms, then time them: a row for every arm's speed, and the ratios of our fastest.

    These are to the first and the fastest of the others. The comparison is the warm-up. A ratio is taken
    within each repeat, then the median over the repeats.
    Raises: Unequal, before any time counts.
    """
    try:
        differences = case.equal(*[arm.run() for arm in case.arms]) or []
    except Unequal as error:
        raise Unequal(f"{case.benchmark}, {case.name}: {error}") from None
    taken = seconds_per_unit(case.arms, clock, repeats)
    clocked = "CPU second" if threads == 1 else "second"
    rows = [_row(case, arm.name, 1.0 / taken[:, column], f"{case.unit} a {clocked}", threads)
            for column, arm in enumerate(case.arms)]
    medians = np.median(taken, axis=0)
    first, fastest = int(medians[:case.own].argmin()), case.own + int(medians[case.own:].argmin())
    rows += [_ratio(case, first, column, taken, threads, case.goal if column == fastest else None)
             for column in sorted({case.own, fastest})]
    if threads == case.threads[0]:
        rows += differences + (case.after([float(m) for m in medians]) if case.after else [])
    return rows


def _ratio(case: Case, first: int, column: int, taken: np.ndarray, threads: int, goal: Goal | None) -> Row:
    name, unit = case.arms[first].name, f"times {case.arms[column].name}"
    if case.goal is not None and case.goal.at_most:
        return _row(case, f"cost of {name}", taken[:, first] / taken[:, column], unit, threads, goal)
    return _row(case, f"speed of {name}", taken[:, column] / taken[:, first], unit, threads, goal)


def _row(case: Case, quantity: str, values: np.ndarray, unit: str, threads: int, goal: Goal | None = None) -> Row:
    wanted = {} if goal is None else vars(goal)
    return Row(case.benchmark, case.name, quantity, statistics.median(values.tolist()), float(values.min()),
               float(values.max()), unit, threads, note=case.note, **wanted)


def check_lists(ours: Sequence[Any], theirs: Sequence[Any], *, gap: float = 1e-5, tolerance: float = 1e-4) -> None:
    """The same ranked lists: ids wherever scores are far enough apart to have an order, and scores everywhere.

    ours, theirs: (codes (U, K, T), scores (U, K)) as arrays or tensors, best first. A position counts where the score
    is more than `gap` away from both neighbours in the list. Raises: Unequal naming the first user and position.
    """
    codes, scores, other_codes, other_scores = (np.asarray(a) for a in (*ours, *theirs))
    if codes.shape != other_codes.shape:
        raise Unequal(f"lists of shape {codes.shape} and {other_codes.shape}")
    with np.errstate(invalid="ignore"):  # unused places are -inf in both
        wrong = ~(np.abs(scores - other_scores) <= tolerance) & ~(scores == other_scores)
        near = -np.diff(scores, axis=1) <= gap
    if wrong.any():
        user, place = np.argwhere(wrong)[0]
        raise Unequal(f"user {user}, place {place + 1}: scores {scores[user, place]} and {other_scores[user, place]}")
    tied = np.zeros(scores.shape, dtype=bool)
    tied[:, 1:] |= near
    tied[:, :-1] |= near
    different = (codes != other_codes).any(axis=2) & ~tied
    if different.any():
        user, place = np.argwhere(different)[0]
        raise Unequal(f"user {user}, place {place + 1}: {codes[user, place].tolist()} and "
                      f"{other_codes[user, place].tolist()}")


def check_close(ours: Any, theirs: Any, *, tolerance: float, what: str) -> None:
    """Numbers that agree to an absolute tolerance. Raises: Unequal with the largest difference."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        raise Unequal(f"{what} of shape {ours.shape} and {theirs.shape}")
    worst = float(np.abs(ours - theirs).max(initial=0.0))
    if not worst <= tolerance:
        raise Unequal(f"{what} differ by {worst:.3g}, more than {tolerance:g}")
