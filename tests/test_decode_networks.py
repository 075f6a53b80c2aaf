"""Beam search over networks: with the search of their own and without, alone and together, in one pass and in many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec_bench.backbones.base import Backbone
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.backbones.tiger_network import Tiger
from genrec_bench.contracts import EOS, PAD, Interactions, SemanticIds
from genrec_bench.core import memory
from genrec_bench.experiments.config import DecodingConfig, RunConfig
from genrec_bench.running.generative import Ranker
from genrec_bench.search.beam import CACHED_ROWS, beam_search, users_per_pass
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.trie import Trie
from tests.tables import ending

torch.set_num_threads(1)  # small tensors: more threads only wait for each other


def trie_of(seed: int) -> Trie:
    """Random IDs of one to three tokens, some of them shared."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 5, size=(40, 3))
    return Trie.from_codes(ending(codes + 2 + 5 * np.arange(3), codes < 2))


def tiger(vocab: int = 17, seed: int = 3) -> Tiger:
    """A small network whose logits are spread out, so that rankings are clear."""
    settings = TigerSettings(width=16, num_layers=2, num_heads=2, head_width=8, feed_forward_width=32, dropout=0.0)
    model = settings.build(vocab, seed).eval()
    with torch.no_grad():
        model.shared.weight.mul_(2.0)
    return model


def padded_histories(users: int = 5, vocab: int = 17) -> Tensor:
    random = np.random.default_rng(1)
    rows = [np.append(random.integers(2, vocab, size=3 * (1 + n)), EOS) for n in range(users)]
    return torch.tensor([[*row, *[PAD] * (3 * users + 1 - len(row))] for row in rows])


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("width", [1, 3, 7, 60])
def test_token_logits_alone_equal_the_fast_path(width: int, normaliser: str) -> None:
    model, trie = tiger(), trie_of(5)

    class Slow:
        token_logits = model.token_logits

    assert not hasattr(Slow, "start")
    fast = beam_search(model, padded_histories(), trie, num_beams=width, normaliser=normaliser)
    slow = beam_search(Slow, padded_histories(), trie, num_beams=width, normaliser=normaliser)
    assert torch.equal(fast.ids, slow.ids) and torch.equal(fast.codes, slow.codes)
    torch.testing.assert_close(fast.scores, slow.scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [4, 60])
def test_a_user_alone_equals_the_user_in_a_padded_batch(width: int) -> None:
    model, trie, together = tiger(), trie_of(6), padded_histories()
    batch = beam_search(model, together, trie, num_beams=width)
    for user, row in enumerate(together):
        alone = beam_search(model, row[row != PAD][None], trie, num_beams=width)
        torch.testing.assert_close(alone.scores[0], batch.scores[user], atol=1e-5, rtol=0)
        assert torch.equal(alone.ids[0], batch.ids[user])


def test_nothing_is_recorded_for_gradients() -> None:
    beams = beam_search(tiger(), padded_histories(), trie_of(6), num_beams=3)
    assert not beams.scores.requires_grad


def ranker(users: int = 30, vocab: int = 17, **decoding: float) -> Ranker:
    """A ranker over random users with 4 to 12 items, whose codes are those of `trie_of` kind."""
    random = np.random.default_rng(4)
    codes = random.integers(2, 17, size=(40, 3))
    sequences = tuple(random.integers(0, 40, size=size) for size in random.integers(4, 13, size=users))
    names = tuple(map(str, range(40)))
    split = LeaveOneOut().split(Interactions("random", names[:users], names, sequences))
    config = RunConfig("row", "quick", {"name": "random"}, 0, LeaveOneOut(),
                       decoding=DecodingConfig(num_beams=8, **decoding))
    return Ranker(split, "test", SemanticIds(codes, (vocab - 2,)), Trie.from_codes(codes), config, (EOS,), "cpu")


def bytes_of(model: Backbone, ranks: Ranker, users: int) -> float:
    """A memory setting that is just enough for so many users with the longest history, in GiB."""
    children = 12 * 8 * max(ranks.trie.max_children(level) for level in range(3))
    longest = int(ranks.data.history_tokens.max()) + 1
    return users * 4 * (children + model.decoding_floats(longest, 8, 3)) / 2**30


@pytest.mark.parametrize("kind", ["tiger", "llama", "foreign"])
def test_lists_do_not_depend_on_the_memory_they_may_take(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One user a pass, about 3, about 7 and all of them: the same IDs, scores that differ by rounding."""
    settings = {"width": 16, "num_layers": 2, "num_heads": 2, "head_width": 8, "feed_forward_width": 32}
    model = LlamaSettings(**settings).build(17, 0).eval() if kind == "llama" else tiger()
    if kind == "foreign":
        monkeypatch.setattr(model, "start", lambda histories: Backbone.start(model, histories))
        monkeypatch.setattr(model, "decoding_floats", lambda *sizes: Backbone.decoding_floats(model, *sizes))
    monkeypatch.setattr("genrec_bench.search.beam.CACHED_ROWS", 10**6)
    lists, scores, passes = [], [], []

    def watched(*args: object, **kwargs: object) -> object:
        beams = beam_search(*args, **kwargs)
        scores[-1].append(beams.scores)
        return beams

    monkeypatch.setattr("genrec_bench.running.generative.beam_search", watched)
    for users in (1, 3, 7, 1000):
        scores.append([])
        lists.append(ranker(memory_gib=bytes_of(model, ranker(), users)).lists(model))
        passes.append([len(part) for part in scores[-1]])
    assert passes[0][-1] == 1 and passes[1][-2] == 3 and max(passes[2]) >= 7 and passes[3] == [30]  # short ones first
    for found, part in zip(lists[1:], scores[1:], strict=True):
        assert np.array_equal(found, lists[0])
        torch.testing.assert_close(torch.cat(part), torch.cat(scores[0]), atol=1e-5, rtol=0)


def test_as_many_users_as_memory_and_caches_hold() -> None:
    """Histories of 10, 10, 20, 40 tokens at 100 numbers a token: 4,000, 8,000, 24,000 and 64,000 bytes of 1 to 4."""
    def count(kibibytes: float, cached: bool = False) -> int:
        return users_per_pass([10, 10, 20, 40], lambda tokens: 100 * tokens, num_beams=5,
                              memory_gib=kibibytes / 2**20, cached=cached)

    assert [count(k) for k in (0.1, 3.9, 4.0, 7.9, 23.4, 23.5, 62.4, 62.5, 1e6)] == [1, 1, 1, 2, 2, 3, 3, 4, 4]
    tall = [CACHED_ROWS // 4] * 9
    assert users_per_pass(tall, lambda tokens: 1, num_beams=1, memory_gib=1.0, cached=True) == 4
    assert users_per_pass([1] * 9, lambda tokens: 1, num_beams=CACHED_ROWS // 3, memory_gib=1.0, cached=True) == 3
    assert users_per_pass(tall, lambda tokens: 1, num_beams=1, memory_gib=1.0, cached=False) == 9


def test_the_batch_size_stays_the_most_users_of_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(model: Backbone, histories: Tensor, *args: object, **kwargs: object) -> object:
        sizes.append(len(histories))
        return beam_search(model, histories, *args, **kwargs)

    monkeypatch.setattr("genrec_bench.running.generative.beam_search", watched)
    ranker(batch_size=4).lists(tiger())
    assert sizes == [4] * 7 + [2]


@pytest.mark.parametrize("kind", ["tiger", "llama"])
def test_a_pass_stays_within_its_memory(kind: str) -> None:
    """A vocabulary of 150,000: all 30 users at once hold far more than 0.07 GiB beside what the process holds."""
    settings = {"width": 32, "num_layers": 2, "num_heads": 2, "head_width": 16, "feed_forward_width": 64}
    model = {"tiger": TigerSettings, "llama": LlamaSettings}[kind](**settings).build(150_000, 0).eval()
    beam_search(model, padded_histories()[:1], trie_of(5), num_beams=2)  # code and weights are in memory before
    allowed, held = 0.07 * 2**30, {}
    for name, setting in (("bounded", 0.07), ("free", 1000.0)):
        ranks = ranker(vocab=150_000, memory_gib=setting)
        memory.reset_peak()
        before = memory.peak_bytes()
        ranks.lists(model)
        held[name] = memory.peak_bytes() - before
    assert held["bounded"] < allowed < held["free"]


@pytest.mark.parametrize("kind", ["tiger", "llama", "foreign"])
def test_bfloat16_comes_close_and_scores_stay_float32(kind: str) -> None:
    settings = {"width": 16, "num_layers": 2, "num_heads": 2, "head_width": 8, "feed_forward_width": 32}
    model = LlamaSettings(**settings).build(17, 0).eval() if kind == "llama" else tiger()

    class Foreign:
        token_logits = model.token_logits

    network = Foreign if kind == "foreign" else model
    exact, rough = (beam_search(network, padded_histories(), trie_of(5), num_beams=60, precision=precision)
                    for precision in ("float32", "bfloat16"))
    assert rough.scores.dtype == torch.float32
    for user in range(5):  # by ID, as the order of near equals may change
        wanted = dict(zip(exact.ids[user].tolist(), exact.scores[user].tolist(), strict=True))
        differences = [abs(wanted[n] - s) for n, s in zip(rough.ids[user].tolist(), rough.scores[user].tolist(),
                                                         strict=True)]
        assert max(differences) < 0.3
    assert (exact.scores - rough.scores).abs().max() > 1e-5  # else nothing was computed in bfloat16
