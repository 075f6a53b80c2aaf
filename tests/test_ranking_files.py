"""Files of rankings: ids as written, scores in their exact order, in CSV and in Parquet."""

from __future__ import annotations

import dataclasses
import gzip
import os
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


def written(tmp_path: Path, text: str | bytes, name: str = "file.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
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


# Where it comes from

def test_packed_files_and_pipes_are_read(tmp_path: Path) -> None:
    """Gzip is told by its first bytes: a pipe has no name. What was cut off is no gzip file."""
    text = f"{HEADER}u0,i1,3\nu2,i1,2\n".encode()
    for content in (text, gzip.compress(text)):
        ends = os.pipe()
        os.write(ends[1], content)
        os.close(ends[1])
        assert read(Path(f"/dev/fd/{ends[0]}")) == (["u0", "u2"], [3, 2])
        assert read(written(tmp_path, content, "x.csv.gz")) == (["u0", "u2"], [3, 2])
        os.close(ends[0])
    with pytest.raises(UserError, match="x.csv.gz is not a whole gzip file"):
        read(written(tmp_path, gzip.compress(text)[:-9], "x.csv.gz"))


def test_ids_that_are_the_index_of_a_table_are_read(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"user_id": ["u0", "u2"], "item_id": "i1", "score": [3.0, 2.0]})
    for names in (["user_id"], ["user_id", "item_id"]):
        frame.set_index(names).to_parquet(tmp_path / "x.parquet")
        assert read(tmp_path / "x.parquet") == (["u0", "u2"], [3, 2])


# What is wrong

@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty"),
    (HEADER, "holds no rankings"),
    (HEADER + "u0,i1,nan\n", r"file\.csv, line 2, user 'u0': the score is 'nan'"),
    (HEADER + "u0,i1,1\nu0,i2,\n", "line 3, user 'u0': the score '' is not a number"),
    (HEADER + "u0,i1,-inf\n", "line 2, user 'u0': the score is '-inf'"),
    (HEADER + "u0,i1,high\n", "line 2, user 'u0': the score 'high' is not a number"),
    (HEADER + "u0,i1,1_0\n", "'1_0' is not a number"),
    (HEADER + "u0,i1,1\n\nu99,i1,1\n", r"line 4: unknown user 'u99'.*Did you mean 'u"),
    (HEADER + "u0,item1,1\n", "line 2, user 'u0': unknown item 'item1'"),
    (HEADER + "u0,i1,1\nu1,i1,1\nu0,i1,2\n", "line 4: user 'u0' has item 'i1' again, as in line 2"),
    (HEADER + "u0,i1\n", "line 2: 2 values instead of 3"),
    (HEADER + "u0,i1,1,5\n", "line 2: 4 values instead of 3"),
    ("user,item_id,scores\nu0,i1,1\n", "line 1: unknown columns 'user', 'scores'. Rename 'user' to user_id, 'scores'"),
    ("user_id,product_id,logit\nu0,i1,1\n", "Rename 'product_id' to item_id, 'logit' to score"),
    ("user_id,item_id\nu0,i1\n", "no column 'score'"),
    ("user_id,item_id,score,rank\nu0,i1,1,1\n", "unknown column 'rank'. Leave it out"),
    (",user_id,item_id,score\n0,u0,i1,1\n", "has no name: it is the index of pandas"),
    ("user_id,item_id,score,score\nu0,i1,1,1\n", "appears twice"),
    ('"user_id";"item_id";"score"\n"u0";"i1";"0,5"\n', "separated by ';' and not by commas.*read_csv"),
    (HEADER + 'u0,i1,"0,5"\n', "'0,5' is not a number. Write decimals with a point"),
    ("sep=,\n" + HEADER + "u0,i1,1\n", "'sep=,' is for Excel alone. Delete this line"),
    ("sep=;\nuser_id;item_id;score\nu0;i1;1\n", "'sep=;' is for Excel alone"),
    ("u0,i1,1\n", "'u0,i1,1' is no header but the first row"),
    (b"PAR1 and so on", "is Parquet, which is read from a file whose name ends in .parquet"),
    (HEADER.encode() + b"u0,i1,1\nu\xff,i1,1\n", "not UTF-8"),
    (HEADER + 'u0,"i1,1\n', "line 2: unexpected end of data"),
])
def test_bad_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("known", "wrong", "told"), [
    (("18", "180"), "18.0", "Did you mean '18'? The ids look like floats, as pandas writes a column that has gaps"),
    (("18", "180"), "7.0", "It looks like a float, as pandas writes a column that has gaps"),
    (("1234567890123456789",), "1.2345678901234568e+18", "It looks like a float"),
    (("007", "77"), "7", "Did you mean '007'? Zeros are part of an id"),
    (("us\u00e9r0", "user0"), "use\u0301r0", r"Did you mean 'us\xe9r0'? The two look alike in other code points"),
    (("18.5", "180"), "18.0", "Did you mean '180'?"),
])
def test_an_unknown_id_is_told_with_its_cause(known: tuple[str, ...], wrong: str, told: str, tmp_path: Path) -> None:
    """Not the id that looks most like it, but the one that it was."""
    with pytest.raises(UserError) as caught:
        read(written(tmp_path, f"{HEADER}{wrong},i1,1\n"), dataclasses.replace(TOY, user_ids=known))
    assert f"dataset 'toy' has no such user. {told}" in str(caught.value)


def test_floats_of_a_table_are_told_too(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"user_id": [18.0], "item_id": "i1", "score": [1.0]})
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="row 1: unknown user '18.0'.* Did you mean '18'. The ids look like floats"):
        read(tmp_path / "x.parquet", dataclasses.replace(TOY, user_ids=("18", "180")))
