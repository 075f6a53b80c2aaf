"""The numbers of the golden runs do not move: bit for bit on the kind of processor that made them, nearly elsewhere."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.golden_runs import STORED, all_runs, kind

GOLDEN = json.loads(STORED.read_text(encoding="utf-8"))
SAME_KIND = GOLDEN["kind"] == kind()
# Elsewhere: how far a loss may be off, and the share of users whose rank may differ, as near ties change places.
LOSS, RANKS = 1e-4, 0.03
MOVED = ("{} moved. Where that was meant, raise the version of what moved it, write the numbers again with "
         "`python -m tests.golden_runs` and give the reason in the commit.")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the commands leave here."""
    return all_runs(tmp_path_factory.mktemp("golden"))


def test_every_golden_run_is_made(found: dict[str, Any]) -> None:
    assert {part: sorted(found[part]) for part in found} == {part: sorted(GOLDEN[part]) for part in found}


@pytest.mark.parametrize("name", GOLDEN["runs"])
def test_a_golden_run(found: dict[str, Any], name: str) -> None:
    """Losses of every epoch, the validation value, ranks and ties of every user."""
    here, there = found["runs"][name], GOLDEN["runs"][name]
    if SAME_KIND:
        assert here == there, MOVED.format(name)
    assert here["losses"] == pytest.approx(there["losses"], rel=LOSS), MOVED.format(f"{name}: losses")
    assert here["valid_ndcg@10"] == pytest.approx(there["valid_ndcg@10"], abs=0.02), MOVED.format(f"{name}: validation")
    assert_nearly(here, there, ("ranks", "ties", "id_ranks"), name)


def test_the_golden_diagnosis(found: dict[str, Any]) -> None:
    here, there = found["diagnosis"], GOLDEN["diagnosis"]
    if SAME_KIND:
        assert here == there, MOVED.format("the diagnosis")
    assert_nearly(here, there, tuple(there), "the diagnosis")


def assert_nearly(here: dict[str, Any], there: dict[str, Any], names: tuple[str, ...], what: str) -> None:
    """All but a few entries of each array are equal."""
    for name in names:
        a, b = np.array(here[name]), np.array(there[name])
        assert a.shape == b.shape and np.mean(a != b) <= RANKS, MOVED.format(f"{what}: {name}")
