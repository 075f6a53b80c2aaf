"""Diagnoses of made-up networks: random scores of a random trie, searched by brute force, so that all facts agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec_bench.contracts import digest
from genrec_bench.results import diagnoses
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.results.records import RecordStore, RunRecord

BEAMS = (5, 10, 20, 50, 100)
NORMALISERS = ("flat", "trie")
TOP, CAP = 20, 100
VOCABULARY = 16


@dataclass(frozen=True)
class Tree:
    """A random catalogue: level -> distinct prefixes of that length, and each one's parent in the level above."""

    codes: np.ndarray
    levels: tuple[np.ndarray, ...]
    parents: tuple[np.ndarray, ...]


def tree_of(ids: int, levels: int, seed: int = 0) -> Tree:
    """`ids` distinct semantic IDs of `levels` tokens below VOCABULARY."""
    random = np.random.default_rng(seed)
    numbers = np.sort(random.choice(VOCABULARY ** levels, size=ids, replace=False))
    codes = np.stack([numbers // VOCABULARY ** (levels - 1 - t) % VOCABULARY for t in range(levels)], axis=1)
    prefixes, parents, above = [], [], np.zeros(ids, dtype=np.int64)
    for m in range(levels):
        rows, place = np.unique(codes[:, :m + 1], axis=0, return_inverse=True)
        place = place.ravel()
        first = np.unique(place, return_index=True)[1]
        prefixes.append(rows)
        parents.append(above[first])
        above = place
    return Tree(codes, tuple(prefixes), tuple(parents))


def facts_of(tree: Tree, targets: np.ndarray, *, skill: float = 2.0, late: float = 1.0, seed: int = 0,
             beams: tuple[int, ...] = BEAMS) -> dict[str, np.ndarray]:
    """The arrays of a diagnosis of users with these targets (rows of `tree.codes`).

    skill: what is added to the logits of the target's tokens. late: how much wilder the logits of later levels are;
    the wilder, the more a beam loses.
    """
    random = np.random.default_rng(seed)
    users = len(targets)
    scores: dict[str, list[np.ndarray]] = {n: [] for n in NORMALISERS}
    ranks: dict[str, list[np.ndarray]] = {n: [] for n in NORMALISERS}
    for m, (rows, parents) in enumerate(zip(tree.levels, tree.parents, strict=True)):
        logits = random.normal(size=(users, 1 if m == 0 else len(tree.levels[m - 1]), VOCABULARY)) * (1 + late * m)
        own = tree.codes[targets]
        above = np.zeros(users, int) if m == 0 else _places(tree.levels[m - 1], own[:, :m])
        logits[np.arange(users), above, own[:, m]] += skill
        valid = np.zeros((logits.shape[1], VOCABULARY), bool)
        valid[parents, rows[:, m]] = True
        for name in NORMALISERS:
            counted = np.where(valid | (name == "flat"), logits, -np.inf)
            logps = counted - np.log(np.exp(counted).sum(axis=2, keepdims=True))
            before = scores[name][-1][:, parents] if m else 0.0
            scores[name].append(before + logps[:, parents, rows[:, m]])
            mine = counted[np.arange(users), above]
            ranks[name].append(1 + (mine > np.take_along_axis(mine, own[:, m, None], 1)).sum(axis=1))
    facts = {"rows": np.arange(users, dtype=np.int32)}
    for name in NORMALISERS:
        facts |= {f"{name}/{key}": v for key, v in searched_by_arrays(tree, targets, scores[name], beams).items()}
        facts[f"token_rank/{name}"] = np.stack(ranks[name], axis=1).astype(np.uint16)
    return facts


def _places(prefixes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which row of `prefixes` each row of `wanted` is."""
    return (prefixes[None] == wanted[:, None]).all(axis=2).argmax(axis=1)


def searched_by_arrays(tree: Tree, targets: np.ndarray, scores: list[np.ndarray],
                       beams: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What exact search and every beam make of the scores of all prefixes, a (users, prefixes) array a level."""
    users, levels, every = len(targets), len(scores), np.arange(len(targets))
    own = [_places(tree.levels[m], tree.codes[targets][:, :m + 1]) for m in range(levels)]
    prefix_rank = np.stack([1 + (scores[m] > scores[m][every, own[m]][:, None]).sum(axis=1) for m in range(levels)], 1)
    top = np.argsort(-scores[-1], axis=1, kind="stable")[:, :TOP]
    ancestors = [np.stack([_places(tree.levels[m], tree.codes[row][:, :m + 1]) for row in top])
                 for m in range(levels)]
    survived, place, retained = (np.zeros((users, len(beams), *more), int) for more in ((), (), (levels,)))
    for b, width in enumerate(beams):
        alive = np.ones(users, bool)
        kept = np.ones((users, 1), bool)
        for m in range(levels):
            open_ = np.where(kept[:, tree.parents[m]], scores[m], -np.inf)
            best = np.argsort(-open_, axis=1, kind="stable")[:, :width]
            kept = np.zeros_like(open_, bool)
            np.put_along_axis(kept, best, True, axis=1)
            kept &= open_ > -np.inf
            alive &= kept[every, own[m]]
            survived[:, b] += alive
            retained[:, b, m] = np.take_along_axis(kept, ancestors[m], axis=1).sum(axis=1)
        hit = (best == own[-1][:, None]) & alive[:, None]
        place[:, b] = np.where(hit.any(axis=1), 1 + hit.argmax(axis=1), 0)
    floor = np.take_along_axis(scores[-1], top[:, -1:], axis=1)
    needed = 1 + sum((s >= floor).sum(axis=1) for s in scores[:-1])
    capped = np.where(prefix_rank <= CAP, prefix_rank, 0)
    return {"rank": capped[:, -1], "prefix_rank": capped, "survived": survived, "beam_rank": place,
            "retained": retained, "top_size": np.full(users, top.shape[1]), "needed": needed}


def diagnosis_of(record: RunRecord, *, tree: Tree | None = None, users: int = 60, drawn_of: int | None = None,
                 beams: tuple[int, ...] = BEAMS, skill: float = 2.0, late: float = 1.0) -> Diagnosis:
    """The diagnosis of a record; its seed gives the scores, while targets are the same for all runs."""
    tree = tree or tree_of(150, 3)
    targets = np.random.default_rng(5).integers(len(tree.codes), size=users)
    seed = int(digest(record.run_id)[:8], 16)
    facts = facts_of(tree, targets, skill=skill, late=late, seed=seed, beams=beams)
    prefixes = [len(rows) for rows in tree.levels]
    decoding = {k: record.config["decoding"][k] for k in ("normaliser", "num_beams", "temperature")}
    about = {"schema": diagnoses.SCHEMA, "run_id": record.run_id, "beams": list(beams),
             "normalisers": list(NORMALISERS), "top": TOP, "cap": CAP, "levels": len(prefixes),
             "sample": {"users": users, "of": drawn_of or users, "rule": "drawn" if drawn_of else "all",
                        "sha256": digest(f"{record.dataset} {users}")},
             "catalogue": {"items": len(tree.codes) + 2, "ids": len(tree.codes), "prefixes": prefixes,
                           "nodes": 1 + sum(prefixes[:-1])},
             "decoding": decoding, "versions": {"numpy": "0"}}
    return Diagnosis(about, facts)


def stored_beside(store: RecordStore, records: Sequence[RunRecord], **settings) -> None:
    """A diagnosis beside every record."""
    for record in records:
        diagnoses.write(diagnoses.path_of(store, record), diagnosis_of(record, **settings))
