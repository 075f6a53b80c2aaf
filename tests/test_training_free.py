"""Content-kNN and the transition graph: numbers by hand, loop oracles, full lists, both ways with the history."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from baselines._training_free import TrainingFree
from baselines.content_knn import ContentKnn
from baselines.transition_graph import RINGS, Graph, TransitionGraph
from genrec_bench.contracts import Interactions, Split
from genrec_bench.core import registry
from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.core.texts import folder_digest, words_of
from genrec_bench.evaluate import rankings_from_lists, rankings_from_scores
from genrec_bench.splits.leave_one_out import LeaveOneOut
from tests.small_jobs import SHORT, job_of, made_of, run, toy

KINDS = ["red", "green", "blue", "cup", "plate", "bowl", "big", "small"]


def titled(interactions: Interactions, texts: list[str]) -> Interactions:
    return dataclasses.replace(interactions, item_texts=tuple(texts))


def toy_with_texts(seed: int) -> Interactions:
    """Items 0 and 1 share a title, item 2 has no text, item 3 a description alone."""
    random = np.random.default_rng(seed)
    data = toy(num_items=24, num_users=50, seed=seed)
    titles = [" ".join(random.choice(KINDS, size=random.integers(1, 5))) for _ in range(24)]
    texts = [f"{title}\n{random.choice(KINDS)}" for title in titles]
    return titled(data, [texts[1], texts[1], "", "\nred thing", *texts[4:]])


def ranks(baseline: TrainingFree, split: Split, part: str, out: bool, folder: Path) -> list[list[int]]:
    job = job_of(folder, split.interactions)
    found = baseline.rank(job, baseline.fit(split), part)[out]
    return [found.ranks.tolist(), found.ties.tolist(), found.id_ranks.tolist()]


# --- content-kNN -----------------------------------------------------------------------------------------------------

def slow_vectors(texts: list[str], longest: int) -> list[dict[str, float]]:
    """TF-IDF loop by loop: (1 + log n) * (1 + log((1 + I) / (1 + texts with the term))), scaled to length 1."""
    terms = []
    for text in texts:
        words = words_of(text.lower())
        terms.append(Counter(" ".join(words[at:at + n]) for n in range(1, longest + 1)
                             for at in range(len(words) - n + 1)))
    spread = Counter(term for count in terms for term in count)
    vectors = []
    for count in terms:
        vector = {t: (1 + math.log(n)) * (1 + math.log((1 + len(texts)) / (1 + spread[t]))) for t, n in count.items()}
        length = math.sqrt(sum(v * v for v in vector.values()))
        vectors.append({t: v / length for t, v in vector.items()})
    return vectors


def cosine(one: dict[str, float], other: dict[str, float]) -> float:
    return sum(value * other.get(term, 0.0) for term, value in one.items())


def test_content_knn_by_hand(tmp_path: Path) -> None:
    """Newest item 0, "red cup": item 1 shares both words and their pair, 2 the frequent word, 3 none, 4 has no text."""
    texts = ["red cup", "red cup", "red bowl", "plate", ""]
    data = titled(made_of([[4, 0, target, target] for target in (4, 3, 2, 1)], 5), texts)
    outcome = run({"name": "content_knn"}, tmp_path, interactions=data)
    assert outcome.valid.ranks.tolist() == [4, 4, 3, 1]  # the own item, kept, ties with its namesake
    assert outcome.valid.ties.tolist() == [2, 2, 1, 2]
    split = SHORT.split(data)
    unseen = ContentKnn().rank(job_of(tmp_path, data), ContentKnn().fit(split), "valid").unseen
    assert unseen.ranks.tolist() == [0, 3, 2, 1] and unseen.ties.tolist() == [1, 1, 1, 1]  # item 4 was had before


@pytest.mark.parametrize("values", [{}, {"last": 3}, {"last": 2, "weight": 0.9, "ngrams": 1},
                                    {"fields": "text", "last": 4}])
@pytest.mark.parametrize("out", [False, True])
def test_content_knn_against_loops(values: dict, out: bool, tmp_path: Path) -> None:
    split = SHORT.split(toy_with_texts(len(values)))
    baseline, part = ContentKnn(**values), split.test
    texts = split.interactions.item_texts
    vectors = slow_vectors([t.split("\n")[0] for t in texts] if baseline.fields == "title" else list(texts),
                           baseline.ngrams)
    scores = np.zeros((len(part), split.num_items))
    for row in range(len(part)):
        for age, item in enumerate(reversed(part.history(row).tolist()[-baseline.last:])):
            scores[row] += [baseline.weight**age * cosine(vectors[item], other) for other in vectors]
    expected = rankings_from_scores(np.round(scores, 10), part.targets, max_k=20, seen=part.seen if out else None)
    assert ranks(baseline, split, "test", out, tmp_path) == [
        expected.ranks.tolist(), expected.ties.tolist(), expected.id_ranks.tolist()]


# --- transition graph ------------------------------------------------------------------------------------------------

# Training sequences 0 1 2 3, 0 1 4, 0 5, 0 5, 0 0 6: followers of 0 are 5 (twice), 1 (twice) and 6, of 1: 2 and 4,
# of 2: 3. Every user then has items 7 and 7, so that 7 is no item of training.
PATHS = [[0, 1, 2, 3], [0, 1, 4], [0, 5], [0, 5], [0, 0, 6]]
HAND = made_of([[*path, 7, 7] for path in PATHS], 8)


def lists_of(baseline: TransitionGraph, data: Interactions, anchors: list[int], out: list[int] = (),
             length: int = 8) -> list[int]:
    graph = baseline.fit(LeaveOneOut().split(data))
    kept, unseen = baseline.lists(graph, [np.array([a]) for a in anchors], [np.array(out, dtype=np.int64)], length)
    return (unseen if out else kept)[0].tolist()


def test_rings_by_hand() -> None:
    graph = TransitionGraph(features="none").fit(LeaveOneOut().split(HAND))
    row, item, ring = graph.rings(np.array([0, 1, 7, -1]), 3)
    assert list(zip(row.tolist(), item.tolist(), ring.tolist(), strict=True)) == [
        (0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 2), (0, 5, 1), (0, 6, 1), (1, 2, 1), (1, 3, 2), (1, 4, 1)]
    assert graph.rings(np.array([0]), 1)[1].tolist() == [1, 5, 6]
    assert graph.bonus.toarray()[0] == pytest.approx([0, 0.5, 0, 0, 0, 0.5, 0.5 * math.log(2) / math.log(3), 0])


def test_lists_without_features_by_hand() -> None:
    """In training 0 is there 6 times, 1 and 5 twice, the others but 7 once."""
    plain = TransitionGraph(features="none")
    assert lists_of(plain, HAND, [0]) == [1, 5, 6, 2, 4, 3, 0, 7]
    assert lists_of(plain, HAND, [7]) == [0, 1, 5, 2, 3, 4, 6, 7]  # no rings: by frequency
    assert lists_of(plain, HAND, [0], out=[0, 5, 4]) == [1, 6, 2, 3, 7, -1, -1, -1]
    narrow = TransitionGraph(features="none", budgets=(1, 1, 1))
    assert lists_of(narrow, HAND, [0]) == [1, 2, 3, 0, 5, 4, 6, 7]
    assert lists_of(narrow, HAND, [0], out=[1]) == [5, 2, 3, 0, 4, 6, 7, -1]  # taken out before budgets are applied


def test_two_anchors_by_hand() -> None:
    """Newest item 1 (rings 2 4 | 3), before it 0 (rings 1 5 6 | 2 4): an item is listed once, 1 by the older anchor."""
    two = TransitionGraph(features="none", form="two", budgets=(1, 1, 2, 1))
    assert lists_of(two, HAND, [1, 0]) == [2, 3, 1, 5, 4, 0, 6, 7]
    assert lists_of(two, HAND, [1, -1]) == [2, 3, 0, 1, 5, 4, 6, 7]  # a history of one item


def test_features_order_rings_and_fill() -> None:
    """Newest item 0, "red cup": 6 is like it and passes 1 and 5 in ring 1; 7 is like it and fills before 3."""
    texts = ["red cup", "plate", "bowl", "bowl", "red bowl", "plate", "red cup", "cup"]
    assert lists_of(TransitionGraph(budgets=(7, 1, 0)), titled(HAND, texts), [0], out=[0]) == [6, 1, 5, 4, 7, 2, 3, -1]
    assert lists_of(TransitionGraph(budgets=(7, 1, 0)), titled(HAND, texts), [0])[:5] == [6, 1, 5, 4, 0]
    heavy = TransitionGraph(budgets=(7, 1, 0), alpha=3.0)
    assert lists_of(heavy, titled(HAND, texts), [0])[:3] == [1, 5, 6]
    assert lists_of(TransitionGraph(), titled(HAND, ["red cup", *[""] * 7]), [0])[:3] == [1, 5, 6]  # cosine 0


def slow_lists(baseline: TransitionGraph, split: Split, part: str, out: bool, length: int) -> list[list[int]]:
    """The definition, loop by loop."""
    follows: dict[int, Counter] = {item: Counter() for item in range(split.num_items)}
    often = Counter(item for sequence in split.train_sequences for item in sequence.tolist())
    for sequence in split.train_sequences:
        for a, b in zip(sequence[:-1].tolist(), sequence[1:].tolist(), strict=True):
            if a != b:
                follows[a][b] += 1
    texts = [text.split("\n")[0] for text in split.interactions.item_texts]
    vectors = slow_vectors(texts, 1) if baseline.features == "tfidf" else [{}] * len(texts)
    rows, all_lists = getattr(split, part), []
    for row in range(len(rows)):
        gone = set(rows.seen[row].tolist()) if out else set()
        anchors = rows.history(row).tolist()[::-1]

        def order(anchor: int, ring: set[int], bonus: bool, gone: set[int] = gone) -> list[int]:
            most = max(follows[anchor].values(), default=1)
            score = {b: cosine(vectors[anchor], vectors[b]) + bonus * baseline.alpha * math.log(1 + follows[anchor][b])
                     / math.log(1 + most) for b in ring - gone}
            return sorted(score, key=lambda b: (-round(score[b], 8), -often[b], b))

        takes, budgets = [], list(baseline.budgets or sum(RINGS[baseline.form], ()))
        for age, rings in enumerate(RINGS[baseline.form]):
            known = set(anchors[age:age + 1])
            ring = set(known)
            for _ in rings:
                ring = {b for a in ring for b in follows[a]} - known
                known |= ring
                takes.append((order(anchors[age], ring, True) if age < len(anchors) else [], budgets.pop(0)))
        takes.append((order(anchors[0], set(range(split.num_items)), False), length))
        found: list[int] = []
        for end in range(10, length + 10, 10):
            for items, budget in takes:
                room = min(budget, min(end, length) - len(found))
                found += [item for item in items if item not in found][:room]
        all_lists.append(found + [-1] * (length - len(found)))
    return all_lists


@pytest.mark.parametrize("values", [{}, {"features": "none"}, {"form": "two"}, {"budgets": (3, 3, 3), "alpha": 2.0},
                                    {"form": "two", "budgets": (2, 2, 2, 2), "features": "none"}])
@pytest.mark.parametrize("out", [False, True])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_transition_graph_against_loops(values: dict, out: bool, part: str, tmp_path: Path) -> None:
    split, baseline = SHORT.split(toy_with_texts(7)), TransitionGraph(**values)
    lists = slow_lists(baseline, split, part, out, 20)
    assert out or all(-1 not in one for one in lists)  # 24 items fill 20 places
    expected = rankings_from_lists(np.array(lists), getattr(split, part).targets, np.ones(24, int), max_k=20)
    assert ranks(baseline, split, part, out, tmp_path) == [
        expected.ranks.tolist(), expected.ties.tolist(), expected.id_ranks.tolist()]


def test_a_list_begins_a_longer_one_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    split, baseline = SHORT.split(toy_with_texts(3)), TransitionGraph(form="two")
    graph = baseline.fit(split)
    anchors = [np.arange(24), np.arange(24)[::-1]]
    seen = [np.array([n, (n + 3) % 24]) for n in range(24)]
    for short, long in zip(baseline.lists(graph, anchors, seen, 13), baseline.lists(graph, anchors, seen, 20),
                           strict=True):
        assert np.array_equal(short, long[:, :13])
    whole = ranks(baseline, split, "test", True, tmp_path)
    monkeypatch.setattr("baselines.transition_graph.BLOCK", 7)
    assert ranks(baseline, split, "test", True, tmp_path) == whole


def test_an_svd_of_full_width_changes_no_cosine() -> None:
    split = SHORT.split(toy_with_texts(1))
    plain, wide = (TransitionGraph(width=width).fit(split) for width in (0, 1000))
    assert np.allclose(plain.cosines(np.arange(24)), wide.cosines(np.arange(24)), atol=1e-12)
    assert TransitionGraph(width=3).fit(split).vectors.shape == (24, 3)


def test_no_transition_at_all() -> None:
    """Training sequences 0 and 3 3."""
    graph = TransitionGraph(features="none").fit(LeaveOneOut().split(made_of([[0, 1, 2], [3, 3, 1, 2]], 4)))
    assert isinstance(graph, Graph) and graph.follows.nnz == 0 and sparse.issparse(graph.bonus)


# --- refusals and names ----------------------------------------------------------------------------------------------

def test_data_without_texts() -> None:
    split = SHORT.split(toy())
    with pytest.raises(DoesNotFit, match="content_knn.*no item texts.*--baselines"):
        ContentKnn().check_fit(None, split)
    with pytest.raises(DoesNotFit, match="--set transition_graph.features=none"):
        TransitionGraph().check_fit(None, split)
    TransitionGraph(features="none").check_fit(None, split)


@pytest.mark.parametrize("values", [{"budgets": (7, 2)}, {"budgets": (8, 2, 1)}, {"budgets": (0, 0, 0)},
                                    {"form": "two", "budgets": (7, 2, 1)}])
def test_budgets_that_do_not_fit(values: dict) -> None:
    with pytest.raises(UserError, match="budgets"):
        TransitionGraph(**values)


def test_an_encoder_names_a_run_by_its_content(tmp_path: Path) -> None:
    def identity(folder: str) -> dict:
        return registry.identity(TransitionGraph(features="encoder", encoder=str(tmp_path / folder)))

    for folder, content in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights").write_text(content)
    assert identity("a") == identity("b") != identity("c") and identity("a")["content"] == folder_digest(tmp_path / "a")
    with pytest.raises(UserError, match="transition_graph.encoder"):
        TransitionGraph(features="encoder", encoder=str(tmp_path / "d")).check_fit(None, SHORT.split(toy_with_texts(0)))


def test_vectors_of_an_encoder_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = np.random.default_rng(0).normal(size=(24, 5))
    monkeypatch.setattr("baselines.transition_graph.encoded", lambda texts, *_: given)
    vectors = TransitionGraph(features="encoder", encoder=str(tmp_path)).fit(SHORT.split(toy_with_texts(0))).vectors
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 0, *[1] * 20])  # items 2 and 3 have no title
