"""Fixtures that many tests share: the papers' data where it is present, and a toy dataset that needs no file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.contracts import Interactions
from tests.small_jobs import papers_data

TOY_USERS = 50
TOY_ITEMS = 30


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the papers' data; tests that need it are skipped where there is none."""
    folder = papers_data()
    if folder is None:
        pytest.skip("no data of the papers (set GENREC_BENCH_DATA)")
    return folder


def toy_codes() -> np.ndarray:
    """(30, 3) codes; items 10 and 11 share one semantic ID, and so do 27, 28 and 29."""
    items = np.arange(TOY_ITEMS)
    codes = np.stack([items // 8, items // 2 % 4, items % 2], axis=1)
    codes[11], codes[28], codes[29] = codes[10], codes[27], codes[27]
    return codes


@pytest.fixture(scope="session")
def toy_interactions() -> Interactions:
    """50 users, 30 items, 6 to 14 interactions each; the next item is (item + 1) % 30 nine times out of ten."""
    random = np.random.default_rng(0)
    sequences = []
    for _ in range(TOY_USERS):
        items = [int(random.integers(TOY_ITEMS))]
        for _ in range(int(random.integers(5, 14))):
            step = 1 if random.random() < 0.9 else int(random.integers(2, TOY_ITEMS))
            items.append((items[-1] + step) % TOY_ITEMS)
        sequences.append(np.array(items, dtype=np.int64))
    return Interactions("toy", tuple(str(u) for u in range(TOY_USERS)), tuple(str(i) for i in range(TOY_ITEMS)),
                        tuple(sequences), tuple(f"thing number {i}\ngroup {i // 8}" for i in range(TOY_ITEMS)),
                        toy_codes(), "made by the tests")


@pytest.fixture()
def toy_folder(tmp_path: Path, toy_interactions: Interactions) -> Path:
    """The toy as a folder in the generative format: interactions, index and titles."""
    folder = tmp_path / "toy"
    folder.mkdir()
    inter = {u: s.tolist() for u, s in zip(toy_interactions.user_ids, toy_interactions.sequences, strict=True)}
    index = {str(i): [f"<{letter}_{c}>" for letter, c in zip("abc", codes, strict=True)]
             for i, codes in enumerate(toy_codes().tolist())}
    item = {str(i): dict(zip(("title", "group"), text.split("\n"), strict=True))
            for i, text in enumerate(toy_interactions.item_texts)}
    for name, data in (("inter", inter), ("index", index), ("item", item)):
        (folder / f"Toy.{name}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder
