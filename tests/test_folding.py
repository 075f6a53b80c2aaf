"""Candidates folded over shared prefixes, against a set of tuples a user; folded passes, against plain ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec_bench.backbones.base import Backbone, PrefixState
from genrec_bench.backbones.folding import PrefixTree, attend_along_paths, prefix_tree
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.backbones.tiger_network import Tiger
from genrec_bench.contracts import PAD
from genrec_bench.search.beam import beam_search
from genrec_bench.trie import Trie

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
VOCAB = 12


def random_candidates(seed: int, *, ragged: bool) -> Tensor:
    """(B, C, T) of random shape, from few codes so that prefixes are shared."""
    random = np.random.default_rng(seed)
    users, count, depth = (int(random.integers(1, high)) for high in (5, 9, 6))
    codes = random.integers(1, 4, size=(users, count, depth))
    if ragged:
        codes[np.arange(depth) >= random.integers(1, depth + 1, size=(users, count, 1))] = PAD
    return torch.from_numpy(codes)


def path(tree: PrefixTree, user: int, node: int) -> tuple[int, ...]:
    """The prefix a node stands for, read upwards."""
    tokens = []
    while node:
        tokens.append(int(tree.tokens[user, node]))
        node = int(tree.parents[user, node])
    return tuple(reversed(tokens))


def test_the_tree_of_an_example() -> None:
    """Two users; 3-4-5, 3-4-6, 3-7 and 8 go on behind (), (3), (3, 4); four times 2-2-2 behind (), (2), (2, 2)."""
    codes = torch.tensor([[[3, 4, 5], [3, 4, 6], [3, 7, PAD], [8, PAD, PAD]], [[2, 2, 2]] * 4])
    tree = prefix_tree(codes)
    assert tree.widths == (1, 1, 1) and tree.is_chain
    assert tree.tokens.tolist() == [[PAD, 3, 4], [PAD, 2, 2]] and tree.parents.tolist() == [[0, 0, 1]] * 2
    assert tree.nodes[0, :2].tolist() == [[0, 1, 2]] * 2 and tree.nodes[0, 2, :2].tolist() == [0, 1]
    whole = prefix_tree(codes, skip_pad=False)  # (8) and (3, 7) go on with PAD; the second user's levels are filled up
    assert whole.widths == (1, 2, 3) and whole.depths.tolist() == [0, 1, 1, 2, 2, 2] and not whole.is_chain
    assert whole.tokens.tolist() == [[PAD, 3, 8, 4, 7, PAD], [PAD, 2, PAD, 2, PAD, PAD]]
    assert whole.parents.tolist() == [[0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 1]]
    assert whole.nodes[0].tolist() == [[0, 1, 3], [0, 1, 3], [0, 1, 4], [0, 2, 5]]
    assert whole.ancestors[0].tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 1, 0], [4, 1, 0], [5, 2, 0]]
    assert whole.sees[0].int().tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0],
                                            [1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 0, 1]]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("skip_pad", [True, False])
def test_nodes_are_the_distinct_prefixes_that_go_on(seed: int, skip_pad: bool) -> None:
    codes = random_candidates(seed, ragged=seed % 2 == 0)
    users, count, depth = codes.shape
    tree = prefix_tree(codes, skip_pad=skip_pad)
    assert tree.nodes.shape == codes.shape and tree.tokens.shape == tree.parents.shape == (users, sum(tree.widths))
    wanted = [[set() for _ in range(depth)] for _ in range(users)]
    for b, c, t in np.ndindex(*codes.shape):
        prefix = tuple(codes[b, c, :t].tolist())
        if not skip_pad or codes[b, c, t] != PAD:
            wanted[b][t].add(prefix)
            assert path(tree, b, int(tree.nodes[b, c, t])) == prefix
    if count > 1:
        widths = [max(len(wanted[b][t]) for b in range(users)) for t in range(depth)]
        assert tree.widths == tuple(width for width in widths if width)
    for b in range(users):
        for t, first in enumerate(np.cumsum([0, *tree.widths[:-1]])):
            prefixes = sorted(wanted[b][t])
            columns = range(int(first), int(first) + len(prefixes))
            assert [path(tree, b, node) for node in columns] == prefixes, "lexicographic, whatever the order given"


@pytest.mark.parametrize("seed", range(6))
def test_parents_stand_one_level_above_in_filled_columns_too(seed: int) -> None:
    tree = prefix_tree(random_candidates(seed, ragged=True))
    depths = tree.depths
    above = depths[tree.parents]
    assert torch.equal(above[:, 1:], (depths[1:] - 1).expand_as(above[:, 1:])) and not tree.parents[:, 0].any()
    for b, p in np.ndindex(*tree.tokens.shape):
        own = {p}
        while p:
            p = int(tree.parents[b, p])
            own.add(p)
        column = max(own)
        assert set(tree.sees[b, column].nonzero()[:, 0].tolist()) == own == set(tree.ancestors[b, column].tolist())


def test_one_candidate_is_a_chain_without_a_question_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.tensor([[[5, 6, 7]], [[8, PAD, PAD]]])
    monkeypatch.setattr(Tensor, "tolist", None)
    monkeypatch.setattr(Tensor, "item", None)
    tree = prefix_tree(codes)
    monkeypatch.undo()
    assert tree.widths == (1, 1, 1) and tree.tokens.tolist() == [[PAD, 5, 6], [PAD, 8, PAD]]
    assert tree.parents.tolist() == [[0, 0, 1]] * 2 and tree.nodes.tolist() == [[[0, 1, 2]]] * 2


def test_one_longer_candidate_costs_one_node() -> None:
    """The target with its EOS beside 50 negatives without one."""
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(2, 100, (3, 51, 4), generator=random)
    longer = torch.nn.functional.pad(codes, (0, 1), value=PAD)
    longer[:, 0, 4] = 1
    assert prefix_tree(longer).widths == (*prefix_tree(codes).widths, 1)


def test_token_ids_of_any_size_stay_apart() -> None:
    codes = torch.tensor([[[1, 5], [2 ** 31 - 1, 5], [2 ** 31 - 1, 6], [2, 5]]])
    assert prefix_tree(codes).tokens.tolist() == [[PAD, 1, 2, 2 ** 31 - 1]]


@pytest.mark.parametrize("seed", range(4))
def test_gather_takes_each_candidates_own_rows(seed: int) -> None:
    codes = random_candidates(seed, ragged=False)
    tree = prefix_tree(codes)
    logits = torch.randn(*tree.tokens.shape, VOCAB, generator=torch.Generator().manual_seed(seed))
    gathered = tree.gather(logits)
    assert gathered.shape == (*codes.shape, VOCAB)
    for b, c, t in np.ndindex(*codes.shape):
        assert torch.equal(gathered[b, c, t], logits[b, tree.nodes[b, c, t]])


@pytest.mark.parametrize("seed", range(6))
def test_attention_along_paths_is_masked_attention(seed: int) -> None:
    tree = prefix_tree(random_candidates(seed, ragged=seed % 2 == 0), skip_pad=False)
    random = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(*tree.tokens.shape, 2, 5, generator=random, dtype=torch.float64,
                                     requires_grad=True) for _ in range(3))
    bias = torch.randn(2, len(tree.widths), generator=random, dtype=torch.float64, requires_grad=True)
    up = (tree.depths[:, None] - tree.depths).clamp(min=0)
    scores = torch.einsum("bphd,bqhd->bhpq", query, key) + bias[:, up]
    dense = scores.masked_fill(~tree.sees[:, None], -torch.inf).softmax(-1) @ value.transpose(1, 2)
    along = attend_along_paths(query, key, value, tree, bias)
    weights = torch.randn(along.shape, generator=random, dtype=torch.float64)
    inputs = (query, key, value, bias)
    torch.testing.assert_close(along, dense.transpose(1, 2), atol=1e-12, rtol=0)
    wanted = torch.autograd.grad((dense.transpose(1, 2) * weights).sum(), inputs)
    for found, expected in zip(torch.autograd.grad((along * weights).sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)


def test_dropped_weights_keep_their_mean() -> None:
    tree = prefix_tree(torch.tensor([[[1, 2, 3], [1, 4, 5]]]))
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 4, 2, 3, generator=random) for _ in range(3))
    bias = torch.zeros(2, 3)
    torch.manual_seed(0)
    drawn = torch.stack([attend_along_paths(query, key, value, tree, bias, 0.3) for _ in range(3000)])
    plain = attend_along_paths(query, key, value, tree, bias)
    assert (drawn - plain).abs().max() > 0.1
    torch.testing.assert_close(drawn.mean(0), plain, atol=0.1, rtol=0)


# TIGER

def tiger(**changes: float) -> Tiger:
    values = {"width": 16, "num_layers": 2, "num_heads": 2, "head_width": 8, "feed_forward_width": 24, "dropout": 0.0}
    return TigerSettings(**{**values, **changes}).build(VOCAB, 0)


def histories(users: int) -> Tensor:
    random = torch.Generator().manual_seed(users)
    rows = torch.randint(2, VOCAB, (users, 10), generator=random)
    return rows * (torch.arange(10) < torch.randint(2, 11, (users, 1), generator=random))


@pytest.mark.parametrize("seed", range(8))
def test_tiger_folded_equals_one_candidate_at_a_time(seed: int) -> None:
    """Logits and gradients; one candidate is a chain with a causal mask, as before there were trees."""
    model, codes = tiger().eval(), random_candidates(seed, ragged=seed % 2 == 0)
    history, parameters = histories(len(codes)), list(model.parameters())
    weights = torch.randn(*codes.shape, VOCAB, generator=torch.Generator().manual_seed(seed))
    folded = model.token_logits(history, codes)
    alone = torch.cat([model.token_logits(history, one) for one in codes.split(1, dim=1)], dim=1)
    torch.testing.assert_close(folded, alone, atol=1e-5, rtol=0)
    wanted = torch.autograd.grad((alone * weights).sum(), parameters)
    for found, expected in zip(torch.autograd.grad((folded * weights).sum(), parameters), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


def test_tiger_drops_in_trees_too() -> None:
    model, codes = tiger(dropout=0.3).train(), random_candidates(0, ragged=False)
    torch.manual_seed(0)
    first, second = (model.token_logits(histories(len(codes)), codes) for _ in range(2))
    assert not torch.equal(first, second) and first.isfinite().all()


# Backbones of others

class Counting(nn.Module):
    """Defines `token_logits` and nothing else: the next token is likely the sum of those before."""

    def token_logits(self, history: Tensor, codes: Tensor) -> Tensor:
        total = torch.nn.functional.pad(codes, (1, -1)).cumsum(2) + history.sum(1)[:, None, None]
        return torch.nn.functional.one_hot(total % VOCAB, VOCAB).float() * 3.0


class Own(Backbone):
    """The same as a backbone of ours."""

    token_logits = Counting.token_logits


@pytest.mark.parametrize("model", [Counting(), Own()], ids=["plain", "backbone"])
def test_what_has_token_logits_alone_still_decodes(model: nn.Module) -> None:
    codes = np.random.default_rng(0).integers(1, VOCAB, size=(30, 3))
    history = torch.randint(1, VOCAB, (4, 5), generator=torch.Generator().manual_seed(0))
    beams = beam_search(model, history, Trie.from_codes(codes), num_beams=30)
    logps = model.token_logits(history, beams.codes).log_softmax(-1).gather(3, beams.codes[..., None]).sum((2, 3))
    torch.testing.assert_close(beams.scores, logps, atol=1e-5, rtol=0)
    assert isinstance(Own().start(history), PrefixState)


def test_a_backbone_without_either_says_what_to_define() -> None:
    with pytest.raises(TypeError, match="Backbone must define node_logits, or at least token_logits"):
        Backbone().token_logits(histories(2), torch.ones(2, 3, 2, dtype=torch.long))
    with pytest.raises(TypeError, match="no packed_logits"):
        Own().packed_logits(histories(2), torch.zeros(1), torch.ones(1), 2)
