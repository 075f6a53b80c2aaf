"""Files of rankings: ids as written, scores in their exact order, in CSV and in Parquet."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas
import pytest

from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.running.ranking_files import COLUMNS, read_rankings

HEADER = "user_id,item_id,score\n"
TOY = Interactions("toy", tuple(f"u{n}" for n in range(3)), tuple(f"i{n}" for n in range(12)), ())


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.csv"
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, interactions: Interactions = TOY) -> tuple[list[str], list[float]]:
    rows = read_rankings(path, interactions)
    return [interactions.user_ids[u] for u in rows.users], rows.scores.tolist()


def test_blanks_are_part_of_an_id_in_every_format(tmp_path: Path) -> None:
    """Users "u0" and "u0 " are two; where no id has a blank, one with a blank is unknown."""
    two = dataclasses.replace(TOY, user_ids=("u0", "u0 "))
    frame = pandas.DataFrame([("u0", "i1", 1.0), ("u0 ", "i2", 1.0)], columns=list(COLUMNS))
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    for ending in ("csv", "parquet"):
        assert read(tmp_path / f"x.{ending}", two)[0] == ["u0", "u0 "]
    with pytest.raises(UserError, match="unknown user 'u0 '.* Did you mean 'u0'. Blanks are part of an id."):
        read(tmp_path / "x.csv")


WIDE = 2**53
SCORES = [WIDE + 3, WIDE + 2, WIDE + 1, WIDE, WIDE - 1, 0.5, 0, -WIDE, -WIDE - 1]  # no two are equal
OTHERS = {"digits": [str(s) for s in SCORES], "one tie": [*map(str, SCORES[:-1]), f"{SCORES[-2]}.0"],
          "exponents": [f"{Decimal(s):e}" for s in SCORES],
          "decimals": [f"0.12345678901234567{n}" for n in range(18, 10, -1)] + ["0.1"]}


@pytest.mark.parametrize("kind", OTHERS)
def test_scores_keep_their_exact_order(kind: str, tmp_path: Path) -> None:
    """Whole numbers beyond 2**53, of which floats hold every second one, in any spelling, and long decimals."""
    lines = [f"u0,i{n},{s}\n" for n, s in enumerate(OTHERS[kind])]
    scores = read(written(tmp_path, HEADER + "".join(lines)))[1]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == len(SCORES) - (kind == "one tie")


@pytest.mark.parametrize("values", [[2**63 - 1, 2**63 - 2, 5], [2**64 - 1, 2**64 - 2, 5],
                                    [Decimal(WIDE + 1), Decimal(WIDE), Decimal(7)],
                                    [Decimal("0.12345678901234567892"), Decimal("0.12345678901234567891"),
                                     Decimal("0.10000000000000000000")]])
def test_scores_of_parquet_keep_their_exact_order(values: list[Any], tmp_path: Path) -> None:
    kind = "uint64" if max(values) > 2**63 else None
    scores = pandas.Series(values, dtype=kind)
    frame = pandas.DataFrame({"user_id": "u0", "item_id": ["i0", "i1", "i2"], "score": scores})
    frame.to_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet")[1] == [2, 1, 0]


def test_scores_that_floats_hold_stay_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "u0,i1,0.1\nu0,i2, 3e2\nu0,i3,-9007199254740994\n")
    assert read(path)[1] == [0.1, 300.0, -2.0**53 - 2]
