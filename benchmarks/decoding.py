"""Beam search beside Hugging Face's `generate`, and what its cost depends on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import reference
from benchmarks.corpora import Corpus, Setting, batches, sample
from benchmarks.harness import Arm, Case, Goal, Row, check_close, check_lists
from benchmarks.networks import network, to_huggingface
from benchmarks.work import products_of
from genrec_bench.backbones.base import Backbone
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.batches import TokenisedInstances
from genrec_bench.core.devices import autocast
from genrec_bench.search.beam import CACHED_ROWS, beam_search
from genrec_bench.trie import Trie

AT_ONCE = (2, 4, 8, 16, 32)  # users of like length that `generate` decodes together
BEAMS = (5, 10, 20, 50, 100)
CATALOGUES = ("apao_office", "apao_beauty", "apao_yelp")
Lists = tuple[Tensor, Tensor]  # (U, K, T) codes and (U, K) scores


def cases(setting: Setting) -> Iterator[Case]:
    """Paper-size networks with random weights on real histories of Office: the work does not depend on the weights."""
    yield beside_generate(setting, "TIGER, beam 20, EOS step", TigerSettings(), "float32", eos=True)
    for precision in setting.precisions:
        yield beside_generate(setting, "TIGER, beam 20", TigerSettings(), precision, Goal(8))
        yield beside_generate(setting, "Llama, beam 20", LlamaSettings(), precision, Goal(15), users=24)
    yield over_beams(setting)
    yield over_catalogues(setting)


def beside_generate(setting: Setting, name: str, settings: Any, precision: str, goal: Goal | None = None, *,
                    users: int = 48, eos: bool = False) -> Case:
    """Our beam search and `generate` with the same weights; the reference decodes every fourth of our users.

    Users of like length are decoded together by both. `generate` does so with several numbers of users, and in bfloat16
    both with all weights converted and under autocast; what it is measured against is its fastest. In float32 lists
    have to be equal, and `generate` is also used as the papers' scripts do. goal: in bfloat16. eos: the log-probability
    of EOS behind the last code counts, as in APAO's scripts for T5.
    """
    corpus = setting.corpus("apao_office")
    model = network(settings, corpus.ids.vocab_size)
    data, rows = some_rows(corpus, model, setting.some(4 * users))
    places = sample(data.instances.lengths[rows], setting.some(users))
    found_by = generate_arms(to_huggingface(model), [data.histories(rows[[place]])[0].numpy() for place in places],
                             corpus.ids.tokens, precision, eos=eos)

    def ours(precision: str = precision) -> Lists:
        return decode(model, data, rows, corpus.trie, 20, eos=eos, precision=precision)

    def equal(found: Lists, *others: Lists) -> list[Row]:
        exact = found if precision == "float32" else ours("float32")
        some = [part[torch.from_numpy(places)] for part in exact]
        if precision == "bfloat16":
            ways = others[::len(AT_ONCE)]
            return differences(case, [("ours", found, exact), ("generate converted", ways[0], some),
                                      ("generate autocast", ways[1], some)])
        for lists in others:
            check_lists(some, lists)
        return []

    tokens = data.history_tokens[rows]
    note = (f"ours on {len(rows)} users of Office (histories of {tokens.mean():.0f} tokens in the mean, {tokens.max()} "
            f"at most), sorted by length, in passes as the suite makes them; generate on {len(places)} of them, as "
            f"released in one batch padded to the longest; vocabulary {corpus.ids.vocab_size}; random weights")
    low = precision == "bfloat16"
    case = Case("decoding", f"{name}, {precision}", (Arm("ours", ours, len(rows)), *found_by), equal, note=note,
                goal=goal if low else None, threads=(1, 2), plainly=True,
                products=products_of(settings, CACHED_ROWS, precision, 55.0 if low else None))
    return case


def generate_arms(model: Any, histories: list[np.ndarray], codes: np.ndarray, precision: str, *,
                  eos: bool) -> list[Arm]:
    """`generate` in every way that is tried, its lists in the order of the histories."""
    given = np.arange(len(histories))
    by_length = np.argsort([len(history) for history in histories], kind="stable")

    def lists(model: Any, order: np.ndarray, at_once: int, precision: str = "float32") -> Lists:
        back = torch.from_numpy(np.argsort(order))
        with autocast("cpu", precision):
            codes_found, scores = reference.generate(model, [histories[place] for place in order], codes, num_beams=20,
                                                     eos=eos, batch_size=at_once)
        return codes_found[back], scores[back]

    if precision == "float32":
        arms = [Arm("generate as released", partial(lists, model, given, len(given)), len(given))]
        ways = {"": (model, "float32")}
    else:
        arms = []
        ways = {" converted": (copy.deepcopy(model).bfloat16(), "float32"), " autocast": (model, "bfloat16")}
    return arms + [Arm(f"generate{way}, by length, {at_once} at a time",
                       partial(lists, used, by_length, at_once, inside), len(given))
                   for way, (used, inside) in ways.items() for at_once in AT_ONCE]


def differences(case: Case, sides: list[tuple[str, Lists, Lists]]) -> list[Row]:
    """For how many users a side's lists are other than float32's: (name, lists, lists in float32) each."""
    rows = []
    for name, (codes, _), (exact, _) in sides:
        other = (codes != exact).any(dim=2)  # (U, K)
        rows += [case.fact(f"{name}: users with another top {codes.shape[1]} than in float32",
                           100 * float(other.any(dim=1).float().mean()), "%"),
                 case.fact(f"{name}: users with another top 1 than in float32", 100 * float(other[:, 0].float().mean()),
                           "%")]
    return rows


def over_beams(setting: Setting) -> Case:
    """The same users with narrower and wider beams, and the straight line through the costs."""
    corpus = setting.corpus("apao_office")
    model = network(TigerSettings(), corpus.ids.vocab_size)
    data, rows = some_rows(corpus, model, setting.some(128))
    arms = tuple(Arm(f"beam {width}", lambda width=width: decode(model, data, rows, corpus.trie, width), len(rows))
                 for width in BEAMS)
    name = "TIGER, beams 5 to 100"

    def after(seconds: list[float]) -> list[Row]:
        slope, base = np.polyfit(BEAMS, seconds, 1)
        worst = max(abs(taken / (base + slope * width) - 1) for width, taken in zip(BEAMS, seconds, strict=True))
        return [case.fact("cost of a user: fixed part of the line", 1e3 * base, "ms"),
                case.fact("cost of a user: each beam", 1e3 * slope, "ms"),
                case.fact("largest distance from the line", 100 * worst, "%")]

    case = Case("decoding", name, arms, scores_are_those_of(model, data, rows), after=after,
                note=f"{len(rows)} users of Office; least squares over the median costs")
    return case


def over_catalogues(setting: Setting) -> Case:
    """The same network and histories on the tries of growing catalogues."""
    office = setting.corpus("apao_office")
    tries = {name: setting.corpus(name).trie for name in CATALOGUES}
    model = network(TigerSettings(), max(int(trie.token.max()) + 1 for trie in tries.values()))
    data, rows = some_rows(office, model, setting.some(256))
    arms = tuple(Arm(f"{trie.num_ids:,} IDs", lambda trie=trie: decode(model, data, rows, trie, 20), len(rows))
                 for trie in tries.values())
    name = "TIGER, beam 20, catalogues"

    def after(seconds: list[float]) -> list[Row]:
        return [case.fact("dearest catalogue over the cheapest", max(seconds) / min(seconds), "times")]

    case = Case("decoding", name, arms, scores_are_those_of(model, data, rows), after=after,
                note=f"tries of Office, Beauty and Yelp; the {len(rows)} histories and the network are those of Office")
    return case


def some_rows(corpus: Corpus, model: Backbone, users: int) -> tuple[TokenisedInstances, np.ndarray]:
    """Test rows of a corpus for a network, and which of them represent all."""
    data = corpus.data("test", model.history_suffix)
    return data, sample(data.instances.lengths, users)


def decode(model: Backbone, data: TokenisedInstances, rows: np.ndarray, trie: Trie, num_beams: int, *,
           eos: bool = False, precision: str = "float32") -> Lists:
    """What beam search finds for some rows, in their order."""
    return in_order(data, rows, num_beams, lambda histories: beam_search(model, histories, trie, num_beams=num_beams,
                                                                         eos=eos, precision=precision))


def in_order(data: TokenisedInstances, rows: np.ndarray, num_beams: int, search: Callable[[Tensor], Any]) -> Lists:
    """Codes and scores of a search over batches of like length, put back into the order of `rows`."""
    passes = batches(data, rows, num_beams)
    places, found = zip(*[(places, search(histories)) for places, histories in passes], strict=True)
    back = torch.from_numpy(np.argsort(np.concatenate(places)))
    return torch.cat([beams.codes for beams in found])[back], torch.cat([beams.scores for beams in found])[back]


def scores_are_those_of(model: Backbone, data: TokenisedInstances, rows: np.ndarray) -> Callable[..., None]:
    """A check of arms that have nothing to be compared with: their scores are those of a teacher-forced pass."""
    @torch.inference_mode()
    def check(*arms: Lists) -> None:
        for codes, scores in arms:
            for place, row in enumerate(rows[:8]):
                logps = model.token_logits(data.histories(rows[place:place + 1]), codes[None, place]).log_softmax(3)
                forced = logps.gather(3, codes[None, place, :, :, None]).sum((2, 3))[0]
                check_close(scores[place], forced, tolerance=1e-4, what=f"scores of user {row}")

    return check
