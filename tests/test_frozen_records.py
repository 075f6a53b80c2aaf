"""Names and numbers of committed runs of the profile `standard` stay: see `tests/frozen.py`."""

from __future__ import annotations

from genrec_bench.running.submission import check_records
from tests import frozen


def test_what_is_frozen_is_there_and_says_the_same() -> None:
    """Every line has its record, with the same numbers; every record of that kind has its line."""
    now = {record.run_id: frozen.line(record) for record in frozen.records()}
    assert not frozen.broken(frozen.stored(), now)
    assert set(now) == set(frozen.stored()), "python -m tests.frozen adds new runs"


def test_every_committed_record_has_the_name_and_the_numbers_that_it_states() -> None:
    """Names from the settings as the code reads them today, metrics from the ranks."""
    checked = check_records(frozen.RECORDS, None)
    assert checked.records >= len(frozen.stored()) and not checked.problems


def test_suites_still_make_what_is_frozen() -> None:
    """So a profile or suite that is edited leaves no committed run without its row."""
    assert not frozen.orphans()


def test_a_changed_number_and_a_missing_line_are_seen() -> None:
    old = {"a": ("a", "office", "0", "CE", "0.5"), "b": ("b", "office", "1", "CE", "0.4")}
    assert frozen.broken(old, {**old, "c": old["a"]}) == []
    assert frozen.broken(old, {"a": ("a", "office", "0", "renamed", "0.5")}) == ["b (CE, office)"]
    assert frozen.broken(old, {**old, "a": ("a", "office", "0", "CE", "0.51")}) == ["a (CE, office)"]
