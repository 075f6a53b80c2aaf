"""The harness of the benchmarks: what is measured, compared, counted and written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import tables, work
from benchmarks.corpora import sample
from benchmarks.harness import Arm, Case, Goal, Products, Row, Unequal, check_close, check_lists, measure
from benchmarks.machine import is_quiet, precisions
from genrec_bench.core.errors import UserError

NO_MACHINE = dict.fromkeys(tables.ABOUT, "x") | {"load": "0.00"}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class FakeClock:
    """Time passes where an arm says so; the order of calls is written down."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def __call__(self) -> float:
        return self.now

    def arm(self, name: str, seconds: list[float], units: float, calls: int = 1, makes: Any = None) -> Arm:
        """Its first call is the warm-up and takes 1,000 seconds, the next ones `seconds` in turn."""
        left = [1000.0, *seconds]

        def run() -> Any:
            self.calls.append(name)
            self.now += left.pop(0)
            return makes

        return Arm(name, run, units, calls)


def agree(*outputs: Any) -> None:
    """A check that nothing fails."""


def by_quantity(rows: list[Row]) -> dict[str, Row]:
    return {row.quantity: row for row in rows}


def test_speeds_and_ratios_are_medians_over_repeats_in_turn() -> None:
    clock = FakeClock()
    ours = clock.arm("ours", [1.0, 2.0, 4.0], units=8)  # 8, 4, 2 users a second
    theirs = clock.arm("theirs", [6.0, 3.0, 5.0], units=3)  # 0.5, 1, 0.6
    case = Case("decoding", "a", (ours, theirs), agree, goal=Goal(6, 10))
    rows = by_quantity(measure(case, clock, repeats=3, threads=1))
    assert clock.calls == ["ours", "theirs"] * 4
    assert (rows["ours"].value, rows["ours"].low, rows["ours"].high) == (4.0, 2.0, 8.0)
    assert rows["theirs"].value == pytest.approx(0.6) and rows["theirs"].unit == "users a CPU second"
    ratio = rows["speed of ours"]  # 16, 4 and 10/3 within the repeats; the ratio of the medians would be 6.67
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((4.0, 10 / 3, 16.0))
    assert (ratio.target, ratio.aim, ratio.verdict) == (6, 10, "MISSED")


def test_a_cost_is_time_over_time_and_several_calls_share_a_timing() -> None:
    clock = FakeClock()
    ours = clock.arm("exact", [1.0, 3.0], units=2, calls=2)  # 4 s for 4 users
    theirs = clock.arm("beam", [2.0], units=4)  # 2 s for 4 users
    case = Case("exact", "a", (ours, theirs), agree, goal=Goal(5, 3, at_most=True))
    rows = by_quantity(measure(case, clock, repeats=1, threads=2))
    assert clock.calls == ["exact", "beam", "exact", "exact", "beam"]
    assert rows["exact"].value == 1.0 and rows["exact"].unit == "users a second"
    assert rows["cost of exact"].value == 2.0 and rows["cost of exact"].verdict == "aim reached"


def test_the_goal_is_for_our_fastest_beside_the_fastest_of_the_others() -> None:
    """Ours: medians 5, 4; the others: 8, 2 and 6 seconds, all for 2 users."""
    clock = FakeClock()
    taken = {"a": [5.0] * 3, "b": [2.0, 4.0, 6.0], "c": [8.0] * 3, "d": [2.0] * 3, "e": [6.0] * 3}
    case = Case("decoding", "x", tuple(clock.arm(name, seconds, 2) for name, seconds in taken.items()), agree, own=2,
                goal=Goal(2, 3))
    rows = measure(case, clock, repeats=3, threads=1)
    assert [(row.quantity, row.unit, row.value, row.target) for row in rows if row.unit.startswith("times")] == [
        ("speed of b", "times c", 2.0, None), ("speed of b", "times d", 0.5, 2)]


def test_more_rows_come_from_the_outputs_and_the_medians_once() -> None:
    clock = FakeClock()
    case = Case("decoding", "x", (clock.arm("a", [2.0, 4.0, 6.0], 2), clock.arm("b", [8.0] * 3, 2)),
                lambda *outputs: [case.fact("differ", len(outputs), "arms")], threads=(1, 2),
                after=lambda medians: [case.fact("a's median", medians[0], "s")])
    rows = by_quantity(measure(case, clock, repeats=3, threads=1))
    assert rows["a's median"].value == 2.0 and rows["differ"].value == 2
    again = replace(case, arms=tuple(clock.arm(name, [1.0], 1) for name in "ab"))
    assert not {"a's median", "differ"} & set(by_quantity(measure(again, clock, repeats=1, threads=2)))


def test_arms_that_disagree_are_an_error_before_the_clock_is_asked() -> None:
    def no_clock() -> float:
        raise AssertionError("the clock was asked")

    arms = (Arm("a", lambda: np.array([1.0]), 1), Arm("b", lambda: np.array([1.1]), 1))
    case = Case("decoding", "two numbers", arms, lambda a, b: check_close(a, b, tolerance=1e-3, what="numbers"))
    with pytest.raises(Unequal, match=r"decoding, two numbers: numbers differ by 0.1, more than 0.001"):
        measure(case, no_clock, repeats=1, threads=1)


@pytest.mark.parametrize(("value", "goal", "verdict"), [
    (11.9, Goal(12, 20), "MISSED"), (12.0, Goal(12, 20), "target reached"), (20.0, Goal(12, 20), "aim reached"),
    (5.1, Goal(5, 3, at_most=True), "MISSED"), (5.0, Goal(5, 3, at_most=True), "target reached"),
    (3.0, Goal(5, 3, at_most=True), "aim reached"), (1.0, None, ""), (2.4, Goal(aim=2.5), "aim missed"),
    (2.5, Goal(aim=2.5), "aim reached"), (8.0, Goal(8), "target reached"), (7.9, Goal(8), "MISSED"),
    (3.1, Goal(3, at_most=True), "MISSED"),
])
def test_verdicts(value: float, goal: Goal | None, verdict: str) -> None:
    wanted = {} if goal is None else vars(goal)
    assert Row("b", "c", "q", value, value, value, "u", 1, **wanted).verdict == verdict


def lists(scores: list[float], codes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """One user's list of one-level IDs."""
    return np.array([[[c] for c in codes]]), np.array([scores])


@pytest.mark.parametrize(("other", "message"), [
    (lists([-1.0, -2.0, -2.000004, -3.0], [4, 6, 5, 7]), None),  # two within 1e-5 may change places
    (lists([-1.00005, -2.0, -2.000004, -3.0], [4, 5, 6, 7]), None),
    (lists([-1.0002, -2.0, -2.000004, -3.0], [4, 5, 6, 7]), "user 0, place 1: scores"),
    (lists([-1.0, -2.0, -2.000004, -3.0], [4, 5, 6, 8]), r"user 0, place 4: \[7\] and \[8\]"),
    (lists([-1.0, -2.0, -2.000004, -3.0], [5, 4, 6, 7]), r"place 1: \[4\] and \[5\]"),
    (lists([-1.0, -2.0, np.nan, -3.0], [4, 5, 6, 7]), "place 3: scores"),
    (lists([-1.0, -2.0, -3.0], [4, 5, 7]), r"shape \(1, 4, 1\) and \(1, 3, 1\)"),
])
def test_lists_agree_where_scores_have_an_order(other: tuple[np.ndarray, np.ndarray], message: str | None) -> None:
    ours = lists([-1.0, -2.0, -2.000004, -3.0], [4, 5, 6, 7])
    if message is None:
        check_lists(ours, other)
    else:
        with pytest.raises(Unequal, match=message):
            check_lists(ours, other)


def test_unused_places_agree_and_shapes_have_to() -> None:
    check_lists(lists([-1.0, -np.inf], [4, 0]), lists([-1.0, -np.inf], [4, 0]))
    with pytest.raises(Unequal, match="place 2"):
        check_lists(lists([-1.0, -np.inf], [4, 0]), lists([-1.0, -9.0], [4, 0]))
    with pytest.raises(Unequal, match="shape"):
        check_close(np.zeros(2), np.zeros(3), tolerance=1.0, what="x")
    with pytest.raises(Unequal, match="nan"):
        check_close(np.array([np.nan]), np.zeros(1), tolerance=1.0, what="x")


def some_lines() -> list[tables.Line]:
    rows = [Row("decoding", "TIGER", "ours", 145.04, 138.0, 150.0, "users a CPU second", 1, note="64 users"),
            Row("decoding", "TIGER", "speed of ours", 11.0, 10.5, 12.5, "times generate", 1, 12.0, 20.0),
            Row("exact", "Office", "cost of exact", 2.5, 2.5, 2.5, "times beam 20", 2, 5.0, 3.0, True)]
    return [tables.Line(row, {**NO_MACHINE, "commit": row.benchmark}) for row in rows]


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    assert tables.read(path) == []
    tables.write(path, some_lines())
    assert tables.read(path) == some_lines()
    assert path.read_text().splitlines()[2].split(",")[11:14] == ["", "keeps", "MISSED"]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table of this benchmark"):
        tables.read(path)


def test_new_lines_replace_their_benchmark_and_place_and_stand_by_case() -> None:
    def line(case: str, threads: int) -> tables.Line:
        return tables.Line(Row("decoding", case, "q", 1.0, 1.0, 1.0, "u", threads), NO_MACHINE)

    old = [*some_lines(), line("b", 2), line("a", 2)]
    new = [line("b", 1), line("a", 1)]
    merged = [(x.row.benchmark, x.row.case, x.row.threads) for x in tables.merged(old, new)]
    assert merged == [("decoding", "b", 1), ("decoding", "b", 2), ("decoding", "a", 1), ("decoding", "a", 2),
                      ("exact", "Office", 2)]


def test_the_page_says_what_settings_gain() -> None:
    """generate: 5 as released, 10 with the allocator, 20 at its best; ours: 40, then 100."""
    speeds = {("float32", "ours"): (40.0, 40.0), ("float32", "generate as released"): (5.0, 10.0),
              ("bfloat16", "ours"): (100.0, 100.0), ("bfloat16", "generate, 8 at a time"): (8.0, 20.0)}
    lines = [tables.Line(Row("decoding", f"TIGER, {precision}", arm, value, value, value, "users a CPU second", 1,
                             allocator=allocator), NO_MACHINE)
             for (precision, arm), pair in speeds.items() for allocator, value in zip(("default", "keeps"), pair,
                                                                                      strict=True)]
    page = tables.render([*lines, *some_lines()]).split("## What settings gain")[1].split("## Decoding")[0]
    assert "| TIGER, float32 | generate as released | 5.00 | 10.0 | 2.00 | 2.00 |" in page
    assert "| TIGER, bfloat16 | ours | 100 | 100 | 1.00 | 2.50 |" in page
    assert "| TIGER, bfloat16 | generate, 8 at a time | 8.00 | 20.0 | 2.50 | 4.00 |" in page
    assert "What settings gain" not in tables.render(some_lines())
    assert "| 1, default allocator |" in tables.render(lines)


def test_bfloat16_needs_instructions_for_it(tmp_path: Path) -> None:
    for flags, known in (("avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx512f", False)):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")
        assert ("bfloat16" in precisions(tmp_path / "cpuinfo")) == known
    assert precisions(tmp_path / "nowhere") == ("float32",)


def test_the_page_marks_what_was_missed_and_a_machine_that_was_busy() -> None:
    page = tables.render(some_lines())
    assert "| TIGER | ours | 1 | 145 | 138 to 150 | users a CPU second |  |  |  |" in page
    assert "|  | speed of ours | 1 | 11.0 | 10.5 to 12.5 | times generate | ≥ 12 | ≥ 20 | **MISSED** |" in page
    assert "| Office | cost of exact | 2 | 2.50 |  | times beam 20 | ≤ 5 | ≤ 3 | aim reached |" in page
    assert "| TIGER | speed of ours | 1 | 11.0 |" in page.split("## Decoding")[0]  # what was aimed at comes first
    assert "- TIGER: 64 users" in page and "not quiet" not in page
    busy = [replace(line, about={**line.about, "load": "1.50"}) for line in some_lines()]
    assert tables.render(busy).count("was not quiet") == 2
    assert is_quiet("0.30") and not is_quiet("0.31")


@pytest.mark.parametrize(("value", "text"), [
    (1234.6, "1,235"), (99.96, "100"), (99.94, "99.9"), (9.996, "10.0"), (1.0, "1.00"), (0.5, "0.500"), (0.0, "0"),
    (0.00012345, "0.00012"), (-3.14159, "-3.14")])
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_multiply_adds_are_those_of_products_and_attention() -> None:
    x, weight = torch.randn(3, 5, 7), torch.randn(11, 7)
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 4, 10, 8)

    def run() -> None:
        torch.nn.functional.linear(x, weight)
        torch.nn.functional.scaled_dot_product_attention(query, key, key)

    assert work.multiply_adds(run) == 3 * 5 * 7 * 11 + 2 * (2 * 4 * 6 * 10 * 8)


def test_shares_sum_to_one_and_name_what_was_done() -> None:
    x = torch.randn(300, 300)
    parts = work.shares(lambda: [x @ x for _ in range(20)])
    assert sum(parts.values()) == pytest.approx(1.0) and parts["matrix products"] > 0.5
    assert work.shares(lambda: [x.clone() for _ in range(20)])["matrix products"] == 0


def test_the_gemm_rate_counts_every_product() -> None:
    ticks = iter(range(100))
    rate = work.gemm_rate(Products(3, ((5, 7), (7, 2))), lambda: float(next(ticks)), repeats=3, calls=4)
    assert rate == 4 * 3 * (5 * 7 + 7 * 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_stands_for_all_lengths(seed: int) -> None:
    lengths = np.random.default_rng(seed).geometric(0.1, 1000)
    places = sample(lengths, 50)
    assert len(set(places.tolist())) == 50 and np.array_equal(places, sample(lengths, 50))
    assert np.array_equal(np.sort(lengths[places]), np.sort(lengths)[10::20])  # the middle of each fiftieth
    assert sorted(sample(lengths[:7], 7)) == list(range(7))
