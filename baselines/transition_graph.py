"""Transition graph: followers of the newest item, their followers and theirs, ordered by how alike the items are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from baselines._training_free import TrainingFree, fields_of, has_texts
from baselines.popularity import item_counts
from genrec_bench.contracts import Job, Split
from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.core.registry import baselines
from genrec_bench.core.settings import setting
from genrec_bench.core.texts import encoded, folder_digest, one_thread, reduced, tfidf, unit_length
from genrec_bench.evaluate import Ranked, rankings_from_lists, row_items
from genrec_bench.splits.order import transitions

TEN = 10  # places that budgets are for
BLOCK = 256  # rows that are ranked together
STEPS = 1e9  # scores are compared in steps of 1 / STEPS: rounding decides no order
RINGS = {"one": ((7, 2, 1),), "two": ((5, 1), (3, 1))}  # of each anchor the places of each of its rings
WHO = "baseline transition_graph"


@dataclass(frozen=True)
class Graph:
    """What the data say of their items.

    follows: (I, I) float32, 1 where column directly follows row. bonus: (I, I) float64, what that adds to a score.
    vectors: (I, D) float64 of length 1 or 0; None = no features. order: (I,) items, most frequent first; place: (I,)
    where an item is in it.
    """

    follows: sparse.csr_array
    bonus: sparse.csr_array
    vectors: np.ndarray | sparse.csr_array | None
    order: np.ndarray
    place: np.ndarray

    def cosines(self, anchors: np.ndarray) -> np.ndarray:
        """(B, I) float64 cosine of every item with each anchor; 0 for the anchor -1, which stands for none."""
        if self.vectors is None:
            return np.zeros((len(anchors), len(self.order)))
        cosines = self.vectors[np.maximum(anchors, 0)] @ self.vectors.T
        cosines = cosines if isinstance(cosines, np.ndarray) else cosines.toarray()
        cosines[anchors < 0] = 0.0
        return cosines

    def rings(self, anchors: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, item and ring (1 to depth) of all that is in a ring of its row's anchor, ordered by row and item."""
        rows = np.flatnonzero(anchors >= 0)
        shape = len(anchors), len(self.order)
        reached = sparse.csr_array((np.ones(len(rows), np.float32), (rows, anchors[rows])), shape=shape)
        found = [(rows, anchors[rows], np.zeros(len(rows), dtype=np.int64))]
        for ring in range(1, depth + 1):
            reached = reached @ self.follows
            reached.data[:] = 1.0
            found.append((np.repeat(np.arange(len(anchors)), np.diff(reached.indptr)), reached.indices,
                          np.full(reached.nnz, ring)))
        row, item, ring = (np.concatenate(parts).astype(np.int64) for parts in zip(*found, strict=True))
        places, first = np.unique(row * shape[1] + item, return_index=True)  # the nearest ring comes first
        inside = ring[first] > 0
        return *np.divmod(places[inside], shape[1]), ring[first][inside]

    def keys(self, scores: np.ndarray, items: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Distinct float64, larger is better: by score, then by frequency in training, then by item number.

        scores: of `items`, in their last dimension.
        """
        keys = scores * STEPS
        return np.rint(keys, out=keys) - self.place[items] / len(self.order)


@baselines.register("transition_graph")
@dataclass(frozen=True)
class TransitionGraph(TrainingFree):
    """TGH of Han et al. 2026 (arXiv 2605.07125): places of a list for what follows the user's newest items.

    W[a, b] counts how often b directly follows a in training sequences. Ring 1 of an anchor a: all b but a with
    W[a, b] > 0; ring h + 1: what follows ring h and is in no earlier ring. Score of b = cosine(a, b)
    + alpha * log(1 + W[a, b]) / the largest log(1 + W[a, .]) of ring 1. Every ten places take the best of each ring by
    budget: of one anchor, the newest item, 7, 2 and 1; or of two, it and the one before, 5 and 1, then 3 and 1. They
    lie in this order, each ring best first, and what rings cannot fill goes to the best cosine with the newest item
    among all items that are not listed. The next ten go on in the same way, so a list is the beginning of any longer
    one. Own history that is taken out is so before that; kept, it competes like all other items. Equal scores (to
    1e-9): the item more frequent in training, then the smaller number. So with features = "none", where all cosines
    are 0, rings 2 and 3 and the rest are filled by frequency.
    Differs from the paper: TF-IDF, not flan-t5-xl, unless `encoder` names one; the released code first fills from
    what earlier rings leave over and then at random, and has an item that follows itself in its own ring 1.
    """

    label: ClassVar[str] = "Transition graph"
    reads_texts: ClassVar[bool] = True

    form: str = setting("one", "anchors: the newest item, or also the one before", choices=tuple(RINGS))
    budgets: tuple[int, ...] = setting((), "places of each ring in ten, anchor by anchor; empty = 7, 2, 1 of form one "
                                           "and 5, 1, 3, 1 of form two", low=0)
    alpha: float = setting(0.5, "weight of the transition count against the cosine", low=0.0)
    features: str = setting("tfidf", "what cosines are of: TF-IDF of the words, a text encoder, or nothing",
                            choices=("tfidf", "encoder", "none"))
    fields: str = setting("title", "the first line of an item's text, or all of it", choices=("title", "text"))
    width: int = setting(0, "tfidf only: components of a truncated SVD, 0 = TF-IDF itself", low=0)
    encoder: str = setting("", "encoder only: folder of a text encoder; a run is named by its content", identity=False)

    def __post_init__(self) -> None:
        """Raises: UserError for budgets that do not fit the form or ten places."""
        rings = sum(map(len, RINGS[self.form]))
        if self.budgets and (len(self.budgets) != rings or not 0 < sum(self.budgets) <= TEN):
            raise UserError(f"{WHO}: budgets = {list(self.budgets)}; form {self.form!r} has {rings} rings, which share "
                            f"1 to {TEN} places.")

    @property
    def content_digest(self) -> str | None:
        """What a run is named by besides settings: the content of the encoder's folder; None without one."""
        folder = Path(self.encoder).expanduser()
        return _digest(folder) if self.features == "encoder" and self.encoder and folder.is_dir() else None

    def check_fit(self, config: Any, split: Split) -> None:
        """Refuse data without texts, and an encoder that is not there. Raises: DoesNotFit, UserError."""
        if self.features != "none" and not has_texts(split.interactions):
            raise DoesNotFit(f"{WHO}: dataset {split.interactions.name!r} has no item texts. Add texts to the dataset, "
                             "or go without: --set transition_graph.features=none.")
        if self.features == "encoder" and not (self.encoder and Path(self.encoder).expanduser().is_dir()):
            raise UserError(f"{WHO}: features = 'encoder' needs transition_graph.encoder: the folder of a text "
                            f"encoder, got {self.encoder!r}.")

    def fit(self, split: Split) -> Graph:
        """Count transitions and make vectors. Raises: DoesNotFit, UserError."""
        self.check_fit(None, split)
        items, counts = split.num_items, transitions(split).tocoo()
        moved = counts.row != counts.col
        counts = sparse.csr_array((counts.data[moved], (counts.row[moved], counts.col[moved])), shape=counts.shape)
        follows, bonus = counts.astype(np.float32), counts
        follows.data[:] = 1.0
        bonus.data = np.log1p(bonus.data)
        most = bonus.max(axis=1).toarray()
        bonus.data *= self.alpha / np.repeat(most, np.diff(bonus.indptr))
        order = np.lexsort((np.arange(items), -item_counts(split)))
        return Graph(follows, bonus, self.vectors(split), order, np.argsort(order))

    def vectors(self, split: Split) -> np.ndarray | sparse.csr_array | None:
        """(I, D) float64 vectors of the items, of length 1, or 0 for items without text."""
        if self.features == "none":
            return None
        texts = fields_of(split.interactions, self.fields)
        if self.features == "encoder":
            folder = str(Path(self.encoder).expanduser())
            vectors = encoded(texts, folder, f"{WHO}: features = 'encoder'", "transition_graph.encoder")
            return unit_length(vectors, texts)
        with one_thread(WHO):
            counts = tfidf(texts, WHO, sublinear_tf=True)
            return unit_length(reduced(counts, self.width, 0), texts) if self.width else sparse.csr_array(counts)

    def parameters(self, fitted: Graph) -> int:
        """Transitions that were seen and weights of the vectors."""
        vectors = fitted.vectors
        width = 0 if vectors is None else vectors.size
        return int(fitted.follows.nnz + width)

    def rank(self, job: Job, fitted: Graph, part: str) -> Ranked:
        """Rank the targets of a part ("valid" or "test") under both policies."""
        instances, length = getattr(job.split, part), job.config.evaluation.max_k
        lists = []
        with one_thread(WHO):
            for start in range(0, len(instances), BLOCK):
                rows = np.arange(start, min(start + BLOCK, len(instances)))
                held = instances.histories[rows]
                anchors = [np.where(held.lengths >= age, held.values[np.maximum(held.ends - age, 0)], -1)
                           for age in range(1, 1 + len(RINGS[self.form]))]
                lists.append(self.lists(fitted, anchors, instances.seen[rows], length))
        ranked = (rankings_from_lists(np.concatenate(policy), instances.targets, np.ones(job.split.num_items, np.int64),
                                      max_k=length) for policy in zip(*lists, strict=True))
        return Ranked(*(replace(ranks, users=instances.groups) for ranks in ranked))

    def lists(self, graph: Graph, anchors: Sequence[np.ndarray], seen: Sequence[np.ndarray],
              length: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, length) items, best first, -1 where there are no more: of all items, and without those of `seen`.

        anchors: of each age (B,) items, -1 = none.
        """
        had = np.zeros((len(seen), len(graph.order)), dtype=bool)
        had[row_items(seen, len(graph.order))] = True
        cosines = [graph.cosines(anchor) for anchor in anchors]
        rest = _best(graph.keys(cosines[0]), length + int(had.sum(axis=1).max(initial=0)))
        takes = [[], []]
        budgets = iter(self.budgets or sum(RINGS[self.form], ()))
        for anchor, cosine, rings in zip(anchors, cosines, RINGS[self.form], strict=True):
            row, item, ring = graph.rings(anchor, len(rings))
            bonus = graph.bonus[np.maximum(anchor, 0)[row], item] * (anchor[row] >= 0)
            group = row * (1 + len(rings)) + ring
            first = _first(group, graph.keys(cosine[row, item] + bonus, item), len(graph.order), rest.shape[1])
            row, item, ring = row[first], item[first], ring[first]
            for number in range(1, 1 + len(rings)):
                mine, budget = ring == number, next(budgets)
                for policy, new in zip(takes, (mine, mine & ~had[row, item]), strict=True):
                    policy.append((_table(row[new], item[new], len(seen), length), budget))
        fresh = ~np.take_along_axis(had, rest, axis=1)
        row, column = np.nonzero(fresh)
        takes[0].append((rest[:, :length], length))
        takes[1].append((_table(row, rest[row, column], len(seen), length), length))
        return _filled(takes[0], length), _filled(takes[1], length)


_digest = cache(folder_digest)


def _best(keys: np.ndarray, length: int) -> np.ndarray:
    """(B, min(length, I)) columns of the largest keys, best first."""
    items = keys.shape[1]
    length = min(length, items)
    found = np.argpartition(keys, items - length, axis=1)[:, items - length:]
    return np.take_along_axis(found, np.argsort(-np.take_along_axis(keys, found, axis=1), axis=1), axis=1)


def _first(group: np.ndarray, keys: np.ndarray, items: int, length: int) -> np.ndarray:
    """Positions of the `length` largest keys of each group, by group, best first. items: of the catalogue."""
    whole = np.rint(keys * items).astype(np.int64)  # keys are multiples of 1 / items
    whole -= whole.min(initial=0)  # so that keys of one group do not reach into the next
    order = np.argsort(group * (int(whole.max(initial=0)) + 1) - whole)
    group = group[order]
    return order[np.arange(len(group)) - np.searchsorted(group, group) < length]


def _table(rows: np.ndarray, items: np.ndarray, count: int, length: int) -> np.ndarray:
    """(count, length) the first items of each row, -1 where there are no more. rows: ascending."""
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < length
    table = np.full((count, length), -1)
    table[rows[kept], place[kept]] = items[kept]
    return table


def _filled(takes: Sequence[tuple[np.ndarray, int]], length: int) -> np.ndarray:
    """(B, length) lists: every ten places take what is not listed yet of each (items, most in ten places) in turn.

    Each items: (B, K), best first, -1 = none; the first `length` candidates are enough of them.
    """
    lists = np.full((len(takes[0][0]), length), -1)
    filled = np.zeros(len(lists), dtype=np.int64)
    for end in range(TEN, length + TEN, TEN):
        for items, budget in takes:
            new = (items >= 0) & ~(items[:, :, None] == lists[:, None, :]).any(axis=2)
            place = filled[:, None] + np.cumsum(new, axis=1) - 1
            new &= place < np.minimum(min(end, length), filled + budget)[:, None]
            row, column = np.nonzero(new)
            lists[row, place[row, column]] = items[row, column]
            filled += new.sum(axis=1)
    return lists
