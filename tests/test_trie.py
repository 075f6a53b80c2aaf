"""The trie against plain Python sets: by hand, on random ragged catalogues, and where codes are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from genrec_bench.contracts import PAD
from genrec_bench.trie import Trie
from tests.tables import ending, with_eos

# Rows 0 and 4 collide; (4,) and (2, 9) are shorter; (3, 7) has a single-child chain below (3,).
HAND = np.array([[2, 5, 8], [2, 6, 8], [3, 7, 0], [4, 0, 0], [2, 5, 8], [2, 9, 0], [3, 7, 0]])


def ids_of(codes: np.ndarray) -> list[tuple[int, ...]]:
    """The semantic ID of every row, without PAD."""
    return [tuple(int(t) for t in row if t != PAD) for row in codes]


def random_codes(seed: int, rows: int = 60, depth: int = 4, tokens: int = 4) -> np.ndarray:
    """Ragged rows with many collisions and chains; the first token of a level's own ends an ID."""
    codes = np.random.default_rng(seed).integers(1, tokens + 1, size=(rows, depth))
    return ending(codes, codes == 1 + np.arange(depth) % tokens)


def test_by_hand() -> None:
    trie = Trie.from_codes(HAND)
    assert (trie.depth, trie.num_prefixes, trie.num_ids) == (3, [3, 4, 2], 5)
    assert trie.children(()).tolist() == [2, 3, 4]
    assert trie.children((2,)).tolist() == [5, 6, 9]
    assert trie.children((3,)).tolist() == [7]
    assert trie.children((3, 7)).tolist() == trie.children((4,)).tolist() == []  # an ID's end is no child
    assert trie.children((2, 5, 8)).tolist() == []
    assert trie.items(()).tolist() == list(range(7))
    assert trie.items((2,)).tolist() == [0, 1, 4, 5]
    assert trie.items((2, 9)).tolist() == [5]
    assert trie.items((2, 5, 8)).tolist() == [0, 4]
    assert trie.items((3, 7)).tolist() == [2, 6]
    # a padded row of the codes is its ID
    assert trie.items((4, 0, 0)).tolist() == [3] == trie.items((4, 0)).tolist()
    assert trie.items(HAND[5]).tolist() == [5] and trie.items((3, 7, 0)).tolist() == [2, 6]
    assert not len(trie.children((4, 0, 0))) and not len(trie.children((4, 0))) and trie.find((4, 0)) == -1
    # distinct IDs in lexicographic order: (2,5,8) (2,6,8) (2,9) (3,7) (4)
    assert trie.id_of_item.tolist() == [0, 1, 3, 4, 0, 2, 3]
    assert trie.id_sizes.tolist() == [2, 1, 1, 2, 1]


@pytest.mark.parametrize("prefix", [(9,), (2, 7), (3, 5), (2, 5, 9), (2, 5, 8, 1), (0,), (3, 0), (3, 0, 0), (100,),
                                    (-1,), (0, 0, 0), (2, 0, 0, 0), (2, 5, 8, 0), (2, 0, 5)])
def test_an_unknown_prefix_has_neither_children_nor_items(prefix: tuple[int, ...]) -> None:
    trie = Trie.from_codes(HAND)
    assert trie.children(prefix).tolist() == [] and trie.items(prefix).tolist() == []


@pytest.mark.parametrize("seed", range(12))
def test_random_ragged_tries_equal_sets(seed: int) -> None:
    codes = random_codes(seed, rows=5 + 10 * seed)
    trie, ids = Trie.from_codes(codes), ids_of(codes)
    deepest = max(map(len, ids))
    prefixes = {y[:m] for y in ids for m in range(len(y) + 1)}
    for prefix in prefixes:
        longer = {y[len(prefix)] for y in ids if len(y) > len(prefix) and y[:len(prefix)] == prefix}
        assert trie.children(prefix).tolist() == sorted(longer)
        assert trie.items(prefix).tolist() == [n for n, y in enumerate(ids) if y[:len(prefix)] == prefix]
    counts = [len({y[:m] for y in ids if len(y) >= m}) for m in range(1, 5)]
    assert trie.num_prefixes == counts and counts[deepest:] == [0] * (4 - deepest)
    distinct = sorted(set(ids))
    assert trie.num_ids == len(distinct)
    assert trie.id_of_item.tolist() == [distinct.index(y) for y in ids]
    assert trie.id_sizes.tolist() == [ids.count(y) for y in distinct]
    for row, own in zip(codes, ids, strict=True):
        assert trie.items(row).tolist() == [n for n, y in enumerate(ids) if y == own]
    for row in random_codes(seed + 100, rows=40):
        (prefix,) = ids_of(row[None])
        if prefix not in prefixes:
            assert not len(trie.children(prefix)) and not len(trie.items(prefix))


@pytest.mark.parametrize("seed", range(4))
def test_flat_arrays_fit_together(seed: int) -> None:
    codes = random_codes(seed)
    trie = Trie.from_codes(codes)
    nodes = len(trie.token)
    assert trie.level_start[0] == 0 and trie.level_start[1] == 1 and trie.level_start[-1] == nodes
    assert len(trie.child_start) == nodes + 1 and trie.child_start[-1] == nodes
    assert sorted(trie.item_order.tolist()) == list(range(len(codes)))
    assert (trie.item_start[0], trie.item_end[0], trie.parent[0]) == (0, len(codes), -1)
    for node in range(nodes):
        children = range(trie.child_start[node], trie.child_start[node + 1])
        assert all(trie.parent[c] == node for c in children)
        tokens = trie.token[children.start:children.stop]
        assert (np.diff(tokens) > 0).all()
        if node < trie.level_start[-2]:
            assert len(children) >= 1
            assert trie.item_start[children[0]] == trie.item_start[node]
            assert trie.item_end[children[-1]] == trie.item_end[node]
            assert all(trie.item_end[c] == trie.item_start[c + 1] for c in children[:-1])
        else:
            assert len(children) == 0
    for level in range(trie.depth):
        inside = range(trie.level_start[level], trie.level_start[level + 1])
        assert trie.max_children(level) == max(trie.child_start[n + 1] - trie.child_start[n] for n in inside)
        assert all(trie.level_start[level + 1] <= trie.child_start[n] <= trie.level_start[level + 2] for n in inside)


def test_a_shorter_id_goes_on_with_pad_nodes() -> None:
    trie = Trie.from_codes(np.array([[2, 0, 0], [3, 3, 4]]))
    assert trie.token.tolist() == [PAD, 2, 3, PAD, 3, PAD, 4]
    assert trie.parent.tolist() == [-1, 0, 0, 1, 2, 3, 4]
    assert trie.num_prefixes == [2, 1, 1]


def test_all_rows_equal_and_one_level() -> None:
    trie = Trie.from_codes(np.full((5, 3), 7))
    assert (trie.num_ids, trie.num_prefixes, trie.id_sizes.tolist()) == (1, [1, 1, 1], [5])
    flat = Trie.from_codes(np.array([[4], [2], [4]]))
    assert (flat.children(()).tolist(), flat.items((4,)).tolist(), flat.depth) == ([2, 4], [0, 2], 1)


def test_input_is_not_changed_and_any_integer_type_will_do() -> None:
    for dtype in (np.int32, np.uint8, np.int64):
        codes = HAND.astype(dtype)
        trie = Trie.from_codes(codes)
        assert trie.items((3, 7)).tolist() == [2, 6]
        assert (codes == HAND).all() and codes.dtype == dtype


def test_order_of_rows_does_not_matter() -> None:
    codes = random_codes(3)
    shuffled = np.random.default_rng(0).permutation(len(codes))
    a, b = Trie.from_codes(codes), Trie.from_codes(codes[shuffled])
    assert (a.token == b.token).all() and (a.parent == b.parent).all()
    assert (a.id_of_item[shuffled] == b.id_of_item).all()


def test_eos_is_one_more_level_behind_ids_with_the_same_numbers() -> None:
    codes = random_codes(3)
    trie, longer = Trie.from_codes(codes), Trie.from_codes(codes).with_eos
    assert longer.depth == trie.depth + 1 and longer.codes.tolist() == with_eos(trie.codes).tolist()
    assert (trie.codes == np.unique(codes, axis=0)).all()
    assert (longer.id_of_item == trie.id_of_item).all() and (longer.id_sizes == trie.id_sizes).all()


@pytest.mark.parametrize(("codes", "message"), [
    (np.empty((0, 3), dtype=int), "non-empty"),
    (np.empty((3, 0), dtype=int), "non-empty"),
    (np.array([1, 2, 3]), "non-empty"),
    (np.array([[1.0, 2.0]]), "integers"),
    (np.array([[True, True]]), "integers"),
    (np.array([[1, 2], [1, -1]]), r"negative \(row 1\)"),
    (np.array([[1, 2], [1, 1], [0, 0]]), "row 2 of codes has no token"),
    (np.array([[1, 2, 3], [1, 0, 3]]), "row 1 of codes"),
    (np.array([[0, 2, 3]]), "row 0 of codes"),
    (np.array([[2, 3, 4], [5, 6, 0], [2, 4, 0], [2, 4, 0], [3, 4, 5], [2, 4, 5]]), "row 3 of codes .* of row 5"),
    (np.array([[2, 3, 4], [3, 0, 0], [2, 0, 0]]), "row 2 of codes is the beginning of row 0"),
    (np.array([[i % 4, i // 4 % 5, i // 20] for i in range(40)]) + [[2, 6, 0]], "row 0 of codes .* of row 20"),
])
def test_bad_codes_are_refused(codes: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trie.from_codes(codes)
