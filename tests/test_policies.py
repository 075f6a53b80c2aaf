"""Both history policies from the search to the record, and users with several test rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genrec_bench.analysis.significance import compare_ranks, compare_values
from genrec_bench.cli import main
from genrec_bench.contracts import Instances
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.metrics.base import averaged
from genrec_bench.results.records import RecordStore
from genrec_bench.search.beam import beam_search
from genrec_bench.splits.last_n import LastN
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.trie import Trie
from tests.small_jobs import made_of
from tests.test_decode import exhaustive, found, histories, ragged_codes, random_table

torch.set_num_threads(1)


# The search without what a user had

@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("seed", range(6))
def test_a_search_without_items_finds_all_other_ids(seed: int, normaliser: str) -> None:
    """Against every ID that keeps an item: over the trie of the others alone, which is what "trie" normalises over."""
    codes, random = ragged_codes(seed), np.random.default_rng(seed)
    trie, table = Trie.from_codes(codes), random_table(seed, 17, integer=False)
    had = [random.permutation(len(codes))[:n] for n in (0, len(codes) // 2, len(codes) - 1)]
    beams = beam_search(table, histories(3), trie, num_beams=100, normaliser=normaliser, without=had)
    for user, items in enumerate(had):
        left = np.delete(codes, items, axis=0)
        truth = exhaustive(table, user + 2, [tuple(int(c) for c in row if c) for row in np.unique(left, axis=0)],
                           normaliser)
        scores = [s for s in beams.scores[user].tolist() if s > -np.inf]
        assert sorted(truth.values(), reverse=True) == pytest.approx(scores, abs=1e-9)
        assert set(found(beams, user)[:len(scores)]) == set(truth)


@pytest.mark.parametrize("seed", range(4))
def test_a_node_is_closed_where_every_item_below_it_was_had(seed: int) -> None:
    codes, random = ragged_codes(seed), np.random.default_rng(seed)
    trie = Trie.from_codes(codes)
    had = [random.integers(len(codes), size=n) for n in (0, 5, 4 * len(codes))]
    closed = trie.closed(had)
    for user, items in enumerate(had):
        for node in range(len(trie.token)):
            below = set(trie.item_order[trie.item_start[node]:trie.item_end[node]].tolist())
            assert closed[user, node] == (below <= set(items.tolist()))


def test_a_list_stays_full() -> None:
    """A narrow beam finds as many IDs as without anything to leave out, though the best ones are closed."""
    codes = np.stack([np.arange(40) // 10 + 2, np.arange(40) % 10 + 6], axis=1)
    trie, table = Trie.from_codes(codes), random_table(0, 17, integer=False)
    best = beam_search(table, histories(1), trie, num_beams=10).ids[0]
    unseen = beam_search(table, histories(1), trie, num_beams=10, without=[best.numpy()]).ids[0]
    assert len(set(unseen.tolist())) == 10 and (unseen >= 0).all() and not set(unseen.tolist()) & set(best.tolist())


# Several rows a user

def rows_of(part: Instances) -> list[tuple[int, list[int], int, list[int]]]:
    return [(int(part.users[n]), part.history(n).tolist(), int(part.targets[n]), part.seen[n].tolist())
            for n in range(len(part))]


def test_the_last_items_derived_by_hand() -> None:
    """Of 0..6 the last two test and the two before validate; histories hold the true items before a target."""
    data = made_of([[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2]], 7)
    split = LastN(test_targets=2, valid_targets=2, max_history=3).split(data)
    assert rows_of(split.test) == [(0, [2, 3, 4], 5, [0, 1, 2, 3, 4]), (0, [3, 4, 5], 6, [0, 1, 2, 3, 4, 5]),
                                   (1, [6, 5, 4], 3, [6, 5, 4]), (1, [5, 4, 3], 2, [6, 5, 4, 3])]
    assert rows_of(split.valid) == [(0, [0, 1, 2], 3, [0, 1, 2]), (0, [1, 2, 3], 4, [0, 1, 2, 3]),
                                    (1, [6], 5, [6]), (1, [6, 5], 4, [6, 5])]
    assert split.train.targets.tolist() == [1, 2] and [s.tolist() for s in split.train_sequences] == [[0, 1, 2], []]
    assert split.test.groups.tolist() == [0, 0, 1, 1]


def test_one_target_of_each_is_leave_one_out(toy_interactions) -> None:
    one = LastN(test_targets=1, valid_targets=1, max_history=5).split(toy_interactions)
    assert one.fingerprint == LeaveOneOut(max_history=5).split(toy_interactions).fingerprint
    assert one.test.groups is None


def test_users_who_are_too_short_for_the_rule_are_named() -> None:
    with pytest.raises(UserError, match="user 'u1' has 5 interactions; split last_n with 4 test and 1 "
                                        "validation rows a user needs at least 6"):
        LastN(test_targets=4).split(made_of([[0] * 9, [0] * 5], 2))


def test_users_are_what_is_compared() -> None:
    """Rows of a user count once: the comparison is that of the users' means."""
    random, groups = np.random.default_rng(0), np.repeat(np.arange(30), 4)
    a, b = random.integers(0, 15, size=(2, 3, 120))
    grouped = compare_ranks(a, b, metric="ndcg", k=10, num_permutations=99, num_resamples=99, groups=groups)
    values = registry.metrics.build({"name": "ndcg"}).values
    means = compare_values(averaged(values(a, 10), groups), averaged(values(b, 10), groups), num_permutations=99,
                           num_resamples=99)
    alone = compare_ranks(a, b, metric="ndcg", k=10, num_permutations=99, num_resamples=99)
    assert grouped.n_users == 30 and (grouped.difference, grouped.p_value, grouped.interval) == (
        means.difference, means.p_value, means.interval)
    assert alone.n_users == 120 and alone.difference == pytest.approx(grouped.difference)
    with pytest.raises(ValueError, match="the user of each of 120 rows"):
        compare_ranks(a, b, metric="ndcg", k=10, groups=groups[:5])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on ml-100k, three test rows a user."""
    folder = tmp_path_factory.mktemp("results")
    assert main(["run", "--suite", "apao", "--profile", "smoke", "--datasets", "ml-100k", "--seeds", "0", "--jobs", "2",
                 "--objectives", "cross_entropy", "--row", "TIGER + cross-entropy", "--baselines", "item_knn", "--set",
                 "split.name=last_n", "--set", "split.test_targets=3", "--results", str(folder)]) == 0
    return folder


def test_a_record_averages_over_a_users_rows_first(results: Path) -> None:
    store = RecordStore(results)
    for record in store.read_all():
        for unseen in (False, True):
            ranks = store.read_ranks(record, unseen=unseen)
            assert record.data["test"] == len(ranks.ranks) == 3 * record.data["users"]
            assert ranks.users.tolist() == np.repeat(np.arange(record.data["users"]), 3).tolist()
            hits = ((ranks.id_ranks > 0) & (ranks.id_ranks <= 10)).reshape(-1, 3).mean(axis=1)
            assert record.metrics[f"{'unseen_' * unseen}id_recall@10"] == pytest.approx(hits.mean())
    assert len({r.metrics["unseen_ndcg@10"] for r in store.read_all()}) == 2


def test_the_report_counts_users(results: Path, tmp_path: Path) -> None:
    """Fewer test users than rows are compared, and the rule is stated."""
    text = (results / "reports/apao/appendix.md").read_text(encoding="utf-8")
    assert "The last 3 items of a user are a test row each" in text
    assert main(["export", "--users", "--results", str(results), "--to", str(tmp_path / "users.csv")]) == 0
    with open(tmp_path / "users.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len({line["user"] for line in lines}) * 3 * 2 == len(lines)
    assert {line["same_day"] for line in lines} <= {"-1", "0", "1"} and all(int(x["unseen_rank"]) >= 0 for x in lines)


def test_a_file_of_rankings_cannot_tell_rows_of_a_user_apart(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(registry.datasets.get("ml-100k"), "default_split", "last_n")
    path = tmp_path / "lists.csv"
    path.write_text("user_id,item_id,score\n1,1,0.5\n", encoding="utf-8")
    assert main(["evaluate", "--rankings", str(path), "--datasets", "ml-100k", "--results", str(tmp_path)]) == 2
    assert "has several test rows a user" in capsys.readouterr().err


def test_the_finished_record_of_a_search_has_both_policies(results: Path) -> None:
    """The generative row, too: of ml-100k nobody rates a film twice, so no target is a miss for that reason."""
    record = next(r for r in RecordStore(results).read_all() if "objectives" in r.config)
    assert json.loads(record.path.read_text())["metrics"]["unseen_recall@20"] >= 0
    assert record.data["order"]["repeated"] == 0
