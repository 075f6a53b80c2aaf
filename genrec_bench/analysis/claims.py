"""What the data say of a claim: the interval of our relative gain beside the gain that a paper prints."""

from __future__ import annotations

import math

SEEN, SMALLER, NOT_SEEN, OPEN = "seen", "smaller than claimed", "not seen", "cannot tell"
ENOUGH = 5  # seeds; with fewer an answer is about these trained networks, not about the objective


def answer(low: float, high: float, claimed: float) -> str:
    """SEEN, SMALLER, NOT_SEEN or OPEN, from the 95% interval of a relative gain and the claimed one.

    low, high: ends of the interval; claimed: the gain; all as parts of the reference's mean, 0.05 for 5%.
    A gain is there where low > 0, and half of the claimed one is still possible where high >= claimed / 2: both are
    SEEN, the first alone SMALLER, the second alone OPEN, neither NOT_SEEN. A claimed loss is asked about alike, as a
    gain of the other side. Raises: ValueError for a claim of 0, numbers that are not finite, or low above high.
    """
    if not all(map(math.isfinite, (low, high, claimed))) or low > high or claimed == 0.0:
        raise ValueError(f"an interval and a claim other than 0 are needed, got {low} to {high} and {claimed}")
    if claimed < 0.0:
        return answer(-high, -low, -claimed)
    possible = high >= claimed / 2
    if low > 0.0:
        return SEEN if possible else SMALLER
    return OPEN if possible else NOT_SEEN


def answer_between(low: float, high: float, least: float, most: float = math.inf) -> str:
    """SEEN, NOT_SEEN or OPEN of a claim without a size, or that two things are about equal: a range of values.

    SEEN where the interval lies inside the range, its ends not counted, NOT_SEEN where it lies outside, else OPEN.
    Raises: ValueError, as `answer`, and for an empty range.
    """
    if not all(map(math.isfinite, (low, high))) or low > high or not least < most:
        raise ValueError(f"an interval and a range are needed, got {low} to {high} and {least} to {most}")
    if least < low and high < most:
        return SEEN
    return NOT_SEEN if high <= least or low >= most else OPEN


def answering(interval: tuple[float, float], over_seeds: tuple[float, float] | None,
              seeds: int) -> tuple[float, float] | None:
    """The interval that answers a claim: from ENOUGH seeds on the one over seeds and users.

    Of fewer seeds a bootstrap sees too little of how seeds differ: each end is then the outer one of this interval and
    of Student's over the seeds' values, and None, which answers nothing, where there is none, as of one seed.
    """
    if seeds >= ENOUGH:
        return interval
    return over_seeds and (min(interval[0], over_seeds[0]), max(interval[1], over_seeds[1]))


def outside(low: float, high: float, claimed: float) -> bool:
    """Whether the claimed size itself lies outside the interval, whatever the answer is."""
    return not low <= claimed <= high


def with_seeds(said: str, seeds: int) -> str:
    """An answer with the number of seeds that it rests on where they are few; OPEN as it is."""
    return said if said == OPEN or seeds >= ENOUGH else f"{said} ({seeds} seed{'s' * (seeds > 1)})"
