"""What the states of a search promise: slots of any age and depth, some of the users alone, nothing asked back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genrec_bench.backbones.base import Backbone, DecodingState, PrefixState
from genrec_bench.backbones.inference import Paths
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.contracts import PAD
from genrec_bench.search.beam import beam_search
from genrec_bench.search.exact import exact_top_k
from genrec_bench.trie import Trie

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
VOCAB, USERS = 23, 5
SMALL = {"width": 16, "num_layers": 3, "num_heads": 2, "head_width": 8, "feed_forward_width": 24}
NETWORKS = {"tiger": TigerSettings(**SMALL, dropout=0.1, num_buckets=4, max_distance=3),
            "llama": LlamaSettings(**SMALL)}
networks = pytest.mark.parametrize("name", NETWORKS)


def network(name: str, seed: int = 0) -> Backbone:
    """A small network whose weights, norms included, are so large that what is attended to matters."""
    model = NETWORKS[name].build(VOCAB, seed).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.1)
    return model


def histories(model: Backbone, seed: int = 0) -> Tensor:
    """Token ids of unequal length, from one token on, PAD at the end."""
    random = np.random.default_rng(seed)
    rows = [[*random.integers(2, VOCAB, size=size), *model.history_suffix] for size in (11, 1, 6, 11, 3)]
    return torch.tensor([[*row, *[PAD] * (14 - len(row))] for row in rows])


class Grown:
    """A state next to a plain list of the prefixes in its slots, grown at random places."""

    def __init__(self, model: Backbone, state: DecodingState, rows: Tensor, seed: int) -> None:
        self.model, self.state, self.histories = model, state, rows
        self.random = np.random.default_rng(seed)
        self.prefixes: list[list[tuple[int, ...]]] = [[()] for _ in rows]

    def grow(self, count: int, longest: int = 4) -> None:
        """Read `count` prefixes more for every user, below random ones that are not too long, and compare."""
        parents = [[int(self.random.choice([n for n, p in enumerate(read) if len(p) < longest]))
                    for _ in range(count)] for read in self.prefixes]
        tokens = self.random.integers(0, VOCAB, size=(len(parents), count))
        for read, above, last in zip(self.prefixes, parents, tokens, strict=True):
            read += [(*read[n], int(token)) for n, token in zip(above, last, strict=True)]
        self.compare(self.state.advance(torch.tensor(parents), torch.from_numpy(tokens)), count)

    def compare(self, logits: Tensor, count: int) -> None:
        """The logits of the last `count` slots are those of `token_logits` behind these prefixes."""
        assert logits.shape == (len(self.histories), count, VOCAB) and logits.dtype == torch.float32
        newest = [read[-count:] for read in self.prefixes]
        depth = max(len(prefix) for read in newest for prefix in read) + 1
        candidates = torch.tensor([[[*prefix, *[2] * (depth - len(prefix))] for prefix in read] for read in newest])
        rows = self.model.token_logits(self.histories, candidates)
        wanted = torch.stack([torch.stack([row[len(prefix)] for prefix, row in zip(read, user, strict=True)])
                              for read, user in zip(newest, rows, strict=True)])
        torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)

    def forget(self, count: int) -> None:
        self.state.forget(count)
        for read in self.prefixes:
            del read[-count:]

    def select(self, users: list[int]) -> Grown:
        chosen = Grown(self.model, self.state.select(torch.tensor(users)), self.histories[users], 99)
        chosen.prefixes = [list(self.prefixes[user]) for user in users]
        return chosen


def grown(name: str, kind: str, seed: int = 0) -> Grown:
    model = network(name, seed)
    rows = histories(model, seed)
    return Grown(model, PrefixState(model, rows) if kind == "prefixes" else model.start(rows), rows, seed)


@pytest.mark.parametrize("kind", ["own", "prefixes"])
@pytest.mark.parametrize("seed", range(3))
@networks
@torch.no_grad()
def test_prefixes_of_any_age_and_depth_go_on(name: str, kind: str, seed: int) -> None:
    search = grown(name, kind, seed)
    search.compare(search.state.first(), 1)
    for count in (3, 1, 7, 2, 5):
        search.grow(count)
    assert max(len(p) for read in search.prefixes for p in read) > 2


@pytest.mark.parametrize("kind", ["own", "prefixes"])
@networks
@torch.no_grad()
def test_some_users_go_on_alone_in_any_order_and_apart(name: str, kind: str) -> None:
    search = grown(name, kind)
    search.compare(search.state.first(), 1)
    search.grow(4)
    some, again = search.select([3, 0, 4]), search.select([1])
    for count in (2, 5):  # three searches side by side: none disturbs another
        some.grow(count)
        search.grow(3)
        again.grow(1)
    fewer = some.select([2, 0])
    fewer.grow(2)


@networks
@torch.no_grad()
def test_users_may_be_chosen_before_anything_is_read(name: str) -> None:
    search = grown(name, "own").select([4, 1])
    search.compare(search.state.first(), 1)
    search.grow(3)


@networks
@torch.no_grad()
def test_a_long_search_outgrows_every_buffer(name: str) -> None:
    search = grown(name, "own").select([0, 1])
    search.state.first()
    for _ in range(12):
        search.grow(13)
    assert len(search.prefixes[0]) == 157


@pytest.mark.parametrize("kind", ["own", "prefixes"])
@networks
@torch.no_grad()
def test_what_is_forgotten_leaves_its_slots_to_others(name: str, kind: str) -> None:
    search = grown(name, kind).select([3, 0, 1])
    search.state.first()
    for count in (5, 9, 4, 4, 3, 6, 3, 5, 8, 7, 11, 3):  # more steps than a beam search has
        search.grow(count)
        search.forget(count // 3)
    some = search.select([2, 0])
    some.grow(3)
    search.grow(70)


@networks
def test_an_exact_search_that_reads_hundreds_of_prefixes_scores_as_token_logits_does(name: str) -> None:
    model = network(name)
    rows, trie = histories(model), Trie.from_codes(np.random.default_rng(0).integers(2, VOCAB, size=(300, 4)))
    found = exact_top_k(model, rows, trie, k=trie.num_ids)
    with torch.no_grad():
        steps = model.token_logits(rows, found.codes).log_softmax(3).gather(3, found.codes[:, :, :, None])
    torch.testing.assert_close(found.scores, steps.sum((2, 3)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_prefix_sees_its_own_path_and_a_step_looks_at_few_slots(seed: int) -> None:
    """Against a plain list of the parents of every slot."""
    random, paths = np.random.default_rng(seed), Paths(2, torch.device("cpu"))
    above: list[list[list[int]]] = [[[]], [[]]]  # of each user and slot the slots on the way to it
    for count in (3, 2, 1, 9, 40, 40, 1, 7, 2, 5, 90, 1, 30):
        before = len(above[0])
        wide = 0, before // 2 + 1
        parents = random.integers(*(wide if seed % 2 else (max(0, before - 3), before)), size=(2, count))
        sight = paths.extend(torch.from_numpy(parents))
        for user, slots in enumerate(above):
            slots += [[*slots[parent], before + n] for n, parent in enumerate(parents[user].tolist())]
            seen = sight.sees[user].numpy()
            slot = np.arange(before + count) if sight.slots is None else sight.slots[user].numpy()
            for n, path in enumerate(slots[before:]):
                assert sorted(slot[seen[n]]) == [0, *path] and int(sight.depths[user, n]) == len(path)
                assert sorted(sight.key_depths[user].numpy()[seen[n]]) == list(range(len(path) + 1))
        if before > 100:  # the ninth step: from here on the search asks for the longest
            longest = int(sight.depths.max())
            assert sight.sees.shape[2] == min(before + count, 1 + count * longest)


@networks
def test_weights_that_change_between_two_searches_are_read_anew(name: str) -> None:
    model = network(name)
    rows, trie = histories(model), Trie.from_codes(np.random.default_rng(0).integers(2, VOCAB, size=(40, 3)))
    before = beam_search(model, rows, trie, num_beams=6).scores
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    after = beam_search(model, rows, trie, num_beams=6).scores

    class Slow:
        token_logits = model.token_logits

    torch.testing.assert_close(after, beam_search(Slow, rows, trie, num_beams=6).scores, atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 1e-3


class Watch(TorchDispatchMode):
    """Notes every operation that makes the host wait for the device."""

    WAITS = ("_local_scalar_dense", "nonzero", "equal.", "is_nonzero", "item", "masked_select", "unique", "_unique",
             "repeat_interleave.Tensor")

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        indices = args[1] if name.startswith(("index.Tensor", "index_put")) else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if name.startswith(self.WAITS) or by_mask:
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_what_waits() -> None:
    rows = torch.arange(4)
    for act in (lambda: int(rows.max()), lambda: bool(rows.sum()), lambda: rows.nonzero(), lambda: rows[rows > 1],
                lambda: rows.unique(), lambda: torch.equal(rows, rows), lambda: rows.masked_select(rows > 1)):
        with Watch() as watch:
            act()
        assert watch.waits


@networks
def test_a_step_never_waits_for_the_device(name: str) -> None:
    model = network(name)
    rows = histories(model)
    trie = Trie.from_codes(np.random.default_rng(0).integers(2, VOCAB, size=(40, 4)))
    with torch.no_grad(), Watch() as watch:
        state = model.start(rows)
        state.first()
        state.advance(torch.zeros(USERS, 3, dtype=torch.long), torch.full((USERS, 3), 4))
        state.advance(torch.tensor([[0, 2, 3]]).expand(USERS, -1), torch.full((USERS, 3), 5))
    assert watch.waits == []
    with Watch() as watch:
        beam_search(model, rows, trie, num_beams=6)
    assert len(watch.waits) == 1  # whether any logits were NaN, when all is computed
