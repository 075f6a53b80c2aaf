"""Exact search beside beam search and beside scoring everything, on trained networks and on growing catalogues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import reference
from benchmarks.corpora import Setting, batches, sample
from benchmarks.decoding import CATALOGUES, Lists, differences, in_order, some_rows
from benchmarks.full_sort import full_sort, leaf_scores
from benchmarks.harness import Arm, Case, Goal, Row, check_close, check_lists
from benchmarks.networks import default_checkpoint, network, to_huggingface, trained
from benchmarks.surrogate import Surrogate, probabilities
from benchmarks.watched import watched_rows
from benchmarks.work import products_of
from genrec_bench.backbones.base import Backbone
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.batches import TokenisedInstances
from genrec_bench.core.devices import autocast
from genrec_bench.search.beam import CACHED_ROWS, beam_search
from genrec_bench.search.exact import exact_top_k
from genrec_bench.trie import Trie

K = 20
CHECKED = 8  # users whose lists are compared with a full sort


def cases(setting: Setting) -> Iterator[Case]:
    """Trained networks first, then random weights and surrogates."""
    for path in setting.checkpoints or (default_checkpoint(setting),):
        for precision in setting.precisions:
            yield beside_beam(setting, path, precision)
    yield full_sort_beside_items(setting)
    yield over_catalogues(setting)


def beside_beam(setting: Setting, path: Path, precision: str = "float32") -> Case:
    """Exact top 20 in times of beam 20, on a trained network; in float32 its lists are those of a full sort."""
    model, corpus, epoch = trained(setting, path)
    data, rows = some_rows(corpus, model, setting.some(128))
    trie = corpus.trie
    settings = model.settings

    def exact(searched: Any = model, precision: str = precision) -> Lists:
        with autocast("cpu", precision):
            return in_order(data, rows, K, lambda histories: exact_top_k(searched, histories, trie, k=K))

    def beam(searched: Any = model, precision: str = precision) -> Lists:
        return in_order(data, rows, K, lambda histories: beam_search(searched, histories, trie, num_beams=K,
                                                                     precision=precision))

    def equal(found: Lists, beams: Lists) -> list[Row] | None:
        if precision == "bfloat16":
            return differences(case, [("exact top 20", found, exact(precision="float32")),
                                      ("beam 20", beams, beam(precision="float32"))])
        sorted_lists = in_order(data, rows[:CHECKED], K, lambda histories: full_sort(model, histories, trie, K))
        check_lists([part[:CHECKED] for part in found], sorted_lists)
        check_close((beams[1] - found[1]).clamp(min=0), torch.zeros_like(found[1]), tolerance=1e-4,
                    what="scores of beam search above the exact ones")
        return None

    def after(seconds: list[float]) -> list[Row]:
        same = (exact()[0][:, :, None] == beam()[0][:, None]).all(dim=3).any(dim=2)
        return [*watched_rows(case, "exact top 20", exact, model, len(rows)),
                *watched_rows(case, "beam 20", beam, model, len(rows)),
                *needed_rows(case, needed_prefixes(model, data, rows[:CHECKED], trie)),
                case.fact("of the exact top 20, in the list of beam 20", 100 * float(same.float().mean()), "%")]

    name = (f"{corpus.name}, {type(model).__name__} of width {settings.width}, {settings.num_layers} layers, run "
            f"{path.resolve().parent.name[:8]}, {precision}")
    case = Case("exact", name, (Arm("exact top 20", exact, len(rows)), Arm("beam 20", beam, len(rows))), equal,
                goal=Goal(3 if precision == "bfloat16" else None, at_most=True), threads=(1, 2),
                after=after if precision == "float32" else None, products=products_of(settings, CACHED_ROWS, precision),
                note=f"weights of epoch {epoch} of a training run; {len(rows)} test users; {trie.num_ids:,} IDs")
    return case


def full_sort_beside_items(setting: Setting) -> Case:
    """All IDs of the catalogue scored for one user: every prefix once, or one decoder pass an ID."""
    corpus = setting.corpus("apao_office")
    model = network(TigerSettings(), corpus.ids.vocab_size)
    theirs = to_huggingface(model)
    data, rows = some_rows(corpus, model, 1)
    history = data.histories(rows)
    trie = corpus.trie
    codes = trie.codes
    arms = (Arm("every prefix once", lambda: leaf_scores(model, history, trie)[0], 1),
            Arm("item by item", lambda: reference.item_by_item(theirs, history[0].numpy(), codes), 1))

    def equal(shared: Tensor, separate: Tensor) -> None:
        check_close(shared, separate, tolerance=1e-4, what="scores of the catalogue")

    nodes = int(trie.level_start[-2])
    return Case("exact", "TIGER, all IDs of Office for one user", arms, equal,
                note=f"{nodes:,} decoder positions against {codes.size:,}; a history of {data.history_tokens[rows[0]]} "
                     "tokens; random weights")


def over_catalogues(setting: Setting) -> Case:
    """What exact search reads, and what it costs beside the network, on growing catalogues of surrogates."""
    arms, searches, notes = [], [], []
    for name in CATALOGUES:
        corpus = setting.corpus(name)
        rows = sample(corpus.split.test.lengths, setting.some(128))
        probability, weight = probabilities(corpus, rows)
        surrogate = Surrogate(corpus.trie, probability, corpus.ids.vocab_size)
        search = _surrogate_search(surrogate, corpus.trie, len(rows))
        arms.append(Arm(f"{corpus.trie.num_ids:,} IDs", search, len(rows)))
        searches.append((surrogate, search, np.sort(probability, axis=1)[:, :-K - 1:-1], corpus.trie))
        notes.append(f"{name} {weight:.2f}")

    def equal(*found: Lists) -> None:
        for (_, _, best, _), (_, scores) in zip(searches, found, strict=True):
            check_close(scores, np.log(best), tolerance=1e-4, what="scores of the surrogate")

    def after(seconds: list[float]) -> list[Row]:
        rows: list[Row] = []
        for arm, (surrogate, search, best, trie) in zip(arms, searches, strict=True):
            rows += watched_rows(case, arm.name, search, surrogate, int(arm.units))
            inner = surrogate.logps[:, :int(trie.level_start[-2])].numpy()
            rows += needed_rows(case, (inner >= np.log(best[:, -1:])).sum(axis=1), f"{arm.name}: ")
        return rows

    case = Case("exact", "exact top 20, surrogates of growing catalogues", tuple(arms), equal, after=after,
                note="no network: probabilities of items are mixed from popularity and co-occurrence in the training "
                     f"data (see surrogate.py), the latter with the weight {', '.join(notes)}; speeds say what the "
                     "search itself costs")
    return case


def _surrogate_search(surrogate: Surrogate, trie: Trie, users: int) -> Callable[..., Lists]:
    def search(searched: Any = surrogate) -> Lists:
        found = [exact_top_k(searched, part[:, None], trie, k=K) for part in torch.arange(users).split(16)]
        return torch.cat([beams.codes for beams in found]), torch.cat([beams.scores for beams in found])

    return search


def needed_rows(case: Case, needed: np.ndarray, before: str = "") -> list[Row]:
    """How many prefixes no exact search can do without, over users."""
    return [case.fact(f"{before}prefixes that any exact search reads, median", float(np.median(needed)), "a user"),
            case.fact(f"{before}prefixes that any exact search reads, 90th percentile",
                      float(np.quantile(needed, 0.9)), "a user")]


def needed_prefixes(model: Backbone, data: TokenisedInstances, rows: np.ndarray, trie: Trie) -> np.ndarray:
    """(U,) inner nodes whose score is not below that of the 20th best ID."""
    needed = []
    for _, histories in batches(data, rows, K):
        for history in histories:
            leaves, inner = leaf_scores(model, history[None], trie)
            needed.append(int((inner >= leaves.topk(min(K, len(leaves))).values[-1]).sum()))
    return np.array(needed)
