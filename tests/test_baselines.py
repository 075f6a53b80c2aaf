"""Baselines without RecBole: numbers by hand, loop oracles, the TOML files, cheap imports."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from baselines import recbole_adapter
from baselines._common import flat_histories
from baselines.item_knn import ItemKnn
from baselines.popularity import item_counts
from genrec_bench.contracts import Split
from genrec_bench.core import memory, registry
from genrec_bench.core.meter import Meter
from genrec_bench.experiments.config import GivesUp
from genrec_bench.experiments.suite_files import load_baseline
from genrec_bench.splits.leave_one_out import LeaveOneOut
from tests.small_jobs import made_of, run, toy

CONFIGS = sorted((Path(recbole_adapter.__file__).parent / "configs").glob("*.toml"))


# --- popularity and item-kNN -----------------------------------------------------------------------------------------

HAND = made_of([[0, 1, 2, 3], [0, 1, 3, 2], [0, 1, 0, 2, 4]], 6)


def test_popularity_by_hand(tmp_path: Path) -> None:
    """Training sequences 01, 01, 010 -> counts 4 3 0 0 0 0: items 2 to 5, all the targets, share places 3 to 6."""
    assert item_counts(LeaveOneOut().split(HAND)).tolist() == [4, 3, 0, 0, 0, 0]
    outcome = run({"name": "popularity"}, tmp_path, interactions=HAND)
    assert outcome.valid.ranks.tolist() == [3, 3, 3] and outcome.valid.ties.tolist() == [4, 4, 4]
    assert outcome.test.ranks.tolist() == [3, 3, 3] and outcome.test.ties.tolist() == [4, 4, 4]


def test_popularity_without_the_own_history(tmp_path: Path) -> None:
    """Items 0 and 1 leave everybody's list, and so does the validation item, one of the equals."""
    outcome = run({"name": "popularity"}, tmp_path, interactions=HAND)
    assert outcome.unseen.ranks.tolist() == [1, 1, 1] and outcome.unseen.ties.tolist() == [3, 3, 3]


def test_item_knn_by_hand() -> None:
    """Training sequences 012, 01, 02 (each user then has two more items, 3 and 4).

    Item 0 has users {a, b, c}, item 1 {a, b}, item 2 {a, c}: cosine(0, 1) = cosine(0, 2) = 2 / sqrt(6),
    cosine(1, 2) = 1 / 2. User a's history 0 1 2 at decay 1/2 weighs 1/4, 1/2, 1.
    """
    split = LeaveOneOut().split(made_of([[0, 1, 2, 3, 4], [0, 1, 3, 4], [0, 2, 3, 4]], 5))
    knn = ItemKnn(decay=0.5)
    similarity = knn.fit(split)
    near = 2 / np.sqrt(6)
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = expected[0, 2] = expected[2, 0] = near
    expected[1, 2] = expected[2, 1] = 0.5
    assert np.allclose(similarity.toarray(), expected, atol=1e-15)
    scores = knn.scores(similarity, split, "valid", np.array([0])).toarray()
    assert np.allclose(scores, [[0.5 * near + near, 0.25 * near + 0.5, 0.25 * near + 0.25, 0, 0]], atol=1e-15)


def test_item_knn_ties_that_are_equal_on_paper(tmp_path: Path) -> None:
    """Users 10 and 11 have seen item 0 alone; its cosines are 1 / sqrt(3 * 1) with item 1, 3 / sqrt(3 * 9) with 2."""
    sequences = [[0, 1, 2, 8, 8], *[[0, 2, 8, 8]] * 2, *[[2, 7, 8, 8]] * 6, [0, 8, 1], [0, 8, 2]]
    outcome = run({"name": "item_knn", "decay": 0.6}, tmp_path, interactions=made_of(sequences, 9))
    assert outcome.test.ranks[-2:].tolist() == [1, 1] and outcome.test.ties[-2:].tolist() == [2, 2]


@pytest.mark.parametrize("seed", range(3))
def test_item_knn_sums_in_another_order_are_equal(seed: int) -> None:
    """Candidates 10 to 19 have the same cosines with the ten items of a history, each in an order of its own."""
    random = np.random.default_rng(seed)
    near = random.random(10)
    similarity = np.zeros((20, 20))
    for candidate in range(10, 20):
        similarity[:10, candidate] = random.permutation(near)
    similarity[:10, 19] = np.append(near[:9], near[9] * (1 + 1e-9))  # greater indeed
    split = LeaveOneOut().split(made_of([[*range(10), 11, target] for target in range(10, 20)], 20))
    scores = ItemKnn(decay=1.0).scores(sparse.csr_array(similarity), split, "valid", np.arange(10)).toarray()
    assert (scores[:, 11:12] == scores[:, 10:19]).all() and (scores[:, 19] > scores[:, 11]).all()


def slow_knn(split: Split, part: str, knn: ItemKnn) -> np.ndarray:
    """The definition, loop by loop."""
    users = [Counter() for _ in range(split.num_items)]
    for user, items in enumerate(split.train_sequences):
        for item in items:
            users[item][user] = 1

    def cosine(a: int, b: int) -> float:
        below = np.sqrt(len(users[a]) * len(users[b])) + knn.shrink
        return len(users[a].keys() & users[b].keys()) / below if a != b and below else 0.0

    rows = getattr(split, part)
    scores = np.zeros((len(rows), split.num_items))
    for row in range(len(rows)):
        for age, item in enumerate(reversed(rows.history(row).tolist())):
            near = {c: cosine(item, c) for c in range(split.num_items)}
            best = sorted(near, key=lambda c: (-near[c], c))[:knn.neighbours or None]
            for candidate in best:
                scores[row, candidate] += knn.decay**age * near[candidate]
    return scores


@pytest.mark.parametrize("values", [{}, {"decay": 1.0}, {"decay": 0.0}, {"neighbours": 3}, {"shrink": 2.0}])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_item_knn_against_loops(values: dict, part: str) -> None:
    split = LeaveOneOut(max_history=4).split(toy(seed=len(values)))
    knn = ItemKnn(**values)
    rows = np.arange(len(getattr(split, part)))
    fast = knn.scores(knn.fit(split), split, part, rows).toarray()
    assert np.allclose(fast, slow_knn(split, part, knn), atol=1e-12)


@pytest.mark.parametrize("values", [{}, {"neighbours": 3}, {"shrink": 2.0}])
@pytest.mark.parametrize("size", [1, 40])
def test_blocks_of_similarities_leave_no_trace(values: dict, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of single rows, and of some; the last two items are nobody's."""
    split = LeaveOneOut().split(toy())
    whole = ItemKnn(**values).fit(split)
    monkeypatch.setattr(sys.modules["baselines.item_knn"], "BLOCK", size)
    parts = ItemKnn(**values).fit(split)
    assert whole.nnz == parts.nnz > 0 and (whole != parts).nnz == 0 and not whole.diagonal().any()


def test_histories_as_triples() -> None:
    split = LeaveOneOut(max_history=4).split(toy())
    rows = np.array([3, 7, 8])
    where, items, age = flat_histories(split.test, rows)
    expected = [(n, item, len(split.test.history(row)) - 1 - at) for n, row in enumerate(rows)
                for at, item in enumerate(split.test.history(row))]
    assert list(zip(where, items, age, strict=True)) == expected


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = run({"name": "item_knn"}, tmp_path)
    rank = sys.modules["baselines.item_knn"].rank_rows
    monkeypatch.setattr("baselines.item_knn.rank_rows", lambda *a, **k: rank(*a, **k, batch_size=7))
    many = run({"name": "item_knn"}, tmp_path)
    assert one.test.ranks.tolist() == many.test.ranks.tolist()


# --- configuration ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_file_holds_what_differs_and_says_where_every_setting_comes_from(path: Path) -> None:
    data = load_baseline(path.stem)
    cls = registry.baselines.get(path.stem)
    defaults = registry.resolved(cls())
    assert all(defaults[key] != value for key, value in data.get("settings", {}).items()), "a default is written out"
    for values in data.get("profiles", {}).values():
        baseline = registry.baselines.build({"name": path.stem, **data.get("settings", {}), **values})
        assert registry.baselines.build(registry.resolved(baseline)) == baseline
    quick, smoke = (data.get("profiles", {}).get(profile) for profile in ("quick", "smoke"))
    trials_own = {f.name for f in dataclasses.fields(GivesUp)}  # no file sets them
    sourced = {*({f.name for f in dataclasses.fields(cls)} - trials_own), *(f"quick.{k}" for k in quick or ()),
               *(["smoke"] if smoke else [])}
    assert set(data["sources"]) == sourced and all(data["sources"].values())


@pytest.mark.parametrize(("spec", "label"), [
    ({"name": "popularity"}, "Popularity"), ({"name": "item_knn"}, "Item-kNN"),
    ({"name": "sasrec"}, "SASRec (RecBole, CE)"), ({"name": "sasrec", "loss_type": "BPR"}, "SASRec (RecBole, BPR)"),
    ({"name": "bert4rec"}, "BERT4Rec (RecBole, target appended)"),
    ({"name": "bert4rec", "protocol": "stock"}, "BERT4Rec (RecBole, stock)")])
def test_labels(spec: dict, label: str) -> None:
    assert registry.baselines.build(spec).label == label


def test_the_peak_memory_of_a_child_is_its_own() -> None:
    """`ru_maxrss` of a child begins with its parent's peak: this process holds 300 MB, the child does not."""
    held = np.ones(300 * 2**20 // 8)
    code = "from genrec_bench.core.memory import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=recbole_adapter.child_environment("cpu", 1)[0])
    assert 2**20 < int(done.stdout) < held.nbytes <= memory.peak_bytes()
    del held
    if Path("/proc/self/clear_refs").exists():
        before = memory.peak_bytes()
        memory.reset_peak()
        assert memory.peak_bytes() < before


def test_a_meter_counts_processor_time_of_all_sessions_and_of_children() -> None:
    """Not the time in which a process is stopped or waits; memory is the most of any session."""
    meter = Meter()
    time.sleep(0.2)
    assert meter.seconds() < 0.15
    code = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    first = meter.seconds()
    assert 0.3 <= first < 1.5
    again = Meter()
    again.go_on({**meter.state(), "peak_bytes": 2**50})
    assert first <= again.seconds() < first + 0.2 and again.peak_bytes() == 2**50
    again.go_on({})  # of a state that does not say
    assert again.state()["peak_bytes"] == 2**50


def test_modules_are_cheap_to_import() -> None:
    code = "import sys; from genrec_bench.core.registry import baselines; print(baselines.names(), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=recbole_adapter.child_environment("cpu", 1)[0])
    assert "item_knn" in done.stdout
    assert not {"torch", "recbole", "pandas"} & set(done.stdout.split())
