"""The page about training-free rows: its numbers by hand, its choices, its intervals, and what is missing in it."""

from __future__ import annotations

import re
from dataclasses import replace
from math import log2
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from genrec_bench.analysis.ranking import mean_interval
from genrec_bench.cli import main
from genrec_bench.contracts import Rankings
from genrec_bench.experiments import file_forms
from genrec_bench.reporting import markdown, training_free
from genrec_bench.reporting.best_printed import beside_printed, best_printed, shares
from genrec_bench.reporting.groups import FEW
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results import test_users
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.results.test_users import REACHES, UserFacts
from tests import readme_part
from tests.readme_part import PARTS, README, between, parts
from tests.small_records import record_of, table_rows

SUITE = '[suite]\nname = "free"\ntitle = "Free rows"\npage = "training-free"\n' + "".join(
    f'[[row]]\nbaseline = "{name}"\n' for name in ("popularity", "item_knn"))
OFFICE, BEAR = 40, 30  # test rows; BEAR's users have three, two or one
BEAR_USERS = np.repeat(np.arange(15), [3] * 5 + [2] * 5 + [1] * 5)
HEADING = "# Training-free rows beside the papers' best rows"


def ranks_of(random: np.random.Generator, count: int, users: np.ndarray | None) -> Rankings:
    """A fifth of the targets at ranks 1 to 12."""
    ranks = np.where(random.random(count) < 0.2, random.integers(1, 13, size=count), 0)
    return Rankings(ranks, np.ones(count, dtype=int), ranks, users)


def records_in(store: RecordStore) -> list[RunRecord]:
    """Two rows on two data sets; in validation item-kNN is better on the first, popularity on the second."""
    random, made = np.random.default_rng(0), []
    for dataset, best, count, users in (("apao_office", "item_knn", OFFICE, None),
                                        ("bear_office", "popularity", BEAR, BEAR_USERS)):
        for method in ("popularity", "item_knn"):
            record = record_of(dataset, method, 0, profile="paper")
            metrics = {**record.metrics, "valid_ndcg@10": 0.5 if method == best else 0.4}
            order = {"rule": "order as given", "neighbours": 100, "newest_again": 0, "targets": count,
                     "repeated": 3 if users is None else 0}
            made.append(replace(record, metrics=metrics, data={**record.data, "order": order}))
            store.write(made[-1], ranks_of(random, count, users), ranks_of(random, count, users))
        owners = np.arange(count) if users is None else users
        facts = UserFacts(record.split_fingerprint, owners, np.ones(count, int), random.integers(0, 2, count),
                          np.ones(count, int), random.integers(0, 6, count), random.integers(-1, 2, count))
        test_users.write_users(test_users.path_of(store, dataset, record.split_fingerprint), facts)
    return made


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "free.toml"
    path.write_text(SUITE)
    return str(path)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    store = RecordStore(tmp_path / "results")
    records_in(store)
    return store


def pages_of(store: RecordStore, suite: str, records: list[RunRecord] | None = None, drawn: bool = False) -> dict:
    records = store.read_all() if records is None else records
    return markdown.build(suite, markdown.Source(records, store.root, drawn=drawn))[0].files


def page_of(store: RecordStore, suite: str, records: list[RunRecord] | None = None) -> str:
    return pages_of(store, suite, records)["training-free.md"].decode()


def gain(rank: int, k: int = 10) -> float:
    return 1 / log2(rank + 1) if 0 < rank <= k else 0.0


@pytest.mark.parametrize(("dataset", "table", "ndcg", "recall", "row"), [
    ("apao_office", None, 0.0337, 0.0671, "APAO, Table 1, TIGER, APAO-Pairwise"),
    ("apao_beauty", None, 0.0339, 0.0639, "APAO, Table 1, TIGER, APAO-Pairwise"),
    ("apao_grocery", None, 0.0419, 0.0815, "APAO, Table 1, TIGER, APAO-Pointwise"),
    ("apao_yelp", None, 0.0218, 0.0412, "APAO, Table 1, TIGER, APAO-Pairwise"),
    ("bear_office", "2", 0.0421, 0.0717, "BEAR, Table 2, BIGRec/Llama-3.2-3B, BEAR"),
    ("bear_toy", "2", 0.0316, 0.0574, "BEAR, Table 2, BIGRec/Llama-3.2-3B, BEAR"),
    ("bear_clothing", "2", 0.0127, 0.0290, "BEAR, Table 2, BIGRec/Llama-3.2-3B, BEAR"),
    ("bear_book", None, 0.0177, 0.0297, "BEAR, Table 2, BIGRec/Llama-3.2-3B, BEAR"),
    ("bear_office", None, 0.0457, 0.0748, "BEAR, Table 3, LLaRA/Llama-3.2-3B, BEAR"),
    ("bear_toy", None, 0.0318, 0.0572, "BEAR, Table 4, BIGRec/Llama-3-8B, BEAR"),
    ("bear_clothing", None, 0.0135, 0.0302, "BEAR, Table 4, BIGRec/Llama-3-8B, BEAR")])
def test_the_best_printed_rows(dataset, table, ndcg, recall, row) -> None:
    best = best_printed(dataset, table)
    assert (best.value, best.recall, best.place) == (ndcg, recall, row)


def test_no_paper_prints_a_row_on_movielens() -> None:
    assert best_printed("ml-100k") is None


def test_the_table_by_hand(store: RecordStore, suite: str) -> None:
    """Chosen by validation, whatever the test says; means over test rows; per cent of the printed number."""
    rows = table_rows("\n" + page_of(store, suite), "")
    assert list(rows) == ["apao_office", "bear_office"]
    for dataset, label, printed in (("apao_office", "Item-kNN", 0.0337), ("bear_office", "Popularity", 0.0457)):
        place, value, _, ours, *numbers = rows[dataset]
        assert (float(value), ours) == (printed, label) and place == best_printed(dataset).place
        record = next(r for r in store.read_all() if (r.dataset, r.label) == (dataset, label))
        kept, unseen = (store.read_ranks(record, unseen=u).ranks for u in (False, True))
        ndcg = [sum(map(gain, ranks)) / len(ranks) for ranks in (kept, unseen)]
        recall = [sum(0 < r <= 10 for r in ranks) / len(ranks) for ranks in (kept, unseen)]
        means = [float(cell.partition(" ")[0]) for cell in numbers[:4]]
        assert means == pytest.approx([ndcg[0], recall[0], ndcg[1], recall[1]], abs=5e-5)
        for mean, cell, ends in zip(ndcg, numbers[4:], (numbers[0], numbers[2]), strict=True):
            low, high = map(float, re.search(r"\[(.*), (.*)\]", ends).groups())
            outcome = "above" if low > printed else "below" if high < printed else "not told apart"
            assert cell == f"{mean / printed - 1:+.1%}: {outcome}" and low <= mean <= high


def test_the_sentence_counts_the_table(store: RecordStore, suite: str) -> None:
    text = page_of(store, suite)
    rows = table_rows("\n" + text, "")
    last = [cells[-2] for cells in rows.values()]
    assert f"On {sum(c.startswith('+') for c in last)} of 2 data sets a training-free row" in text
    assert (f"above the best printed value on {sum('above' in c for c in last)}, below it on "
            f"{sum('below' in c for c in last)} and around it on {sum('apart' in c for c in last)}") in text
    assert "has a higher NDCG@10 than every row that the papers of APAO and BEAR print" in text
    assert text.startswith(HEADING) and "2605.07125" in text
    assert "Untuned, as they come." in text and "apao_office 7.5%, none elsewhere" in text


def test_rows_of_one_user_stand_together() -> None:
    """Values a user whose mean is that of the rows, and an interval like that of drawing users with all their rows."""
    random = np.random.default_rng(1)
    users = np.repeat(np.arange(200), random.integers(1, 6, size=200))
    values = (random.random(len(users)) < 0.02 + 0.5 * (users % 7 == 0)).astype(float)[None]
    one = mean_interval(shares(values, users))
    assert one.value == pytest.approx(values.mean(), abs=1e-12) and one.n == 200
    sums, counts = np.bincount(users, weights=values[0]), np.bincount(users)
    drawn = [sums[d].sum() / counts[d].sum() for d in random.integers(200, size=(4000, 200))]
    assert [one.low, one.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.008)
    assert shares(values, None) is values


def test_the_interval_is_that_of_users(store: RecordStore, suite: str) -> None:
    """For one row a user: that of all other reports, and about the middle 95 % of draws of users."""
    office = beside_printed(ReportData.of(load_suite(suite), store.read_all(), store.root))[0]
    values = np.array([[gain(r) for r in store.read_ranks(office.group.records[0]).ranks]])
    assert office.ndcg[0] == mean_interval(values) == office.users_first[0]
    random = np.random.default_rng(2)
    drawn = [values[0, random.integers(OFFICE, size=OFFICE)].mean() for _ in range(4000)]
    assert [office.ndcg[0].low, office.ndcg[0].high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)


def test_groups_by_a_loop(store: RecordStore, suite: str) -> None:
    rows = table_rows(page_of(store, suite), "## Where the hits are")
    for column, (dataset, label) in enumerate((("apao_office", "Item-kNN"), ("bear_office", "Popularity"))):
        record = next(r for r in store.read_all() if (r.dataset, r.label) == (dataset, label))
        facts = test_users.find_users(store, dataset, record.split_fingerprint)
        ranks = store.read_ranks(record).ranks
        wanted = {name: facts.reach == i for i, name in enumerate(REACHES)}
        wanted |= {"target in training": facts.target_count > 0, "target not in training": facts.target_count == 0,
                   "same day as the item before": facts.same_day == 1, "another day": facts.same_day == 0,
                   "day not known": facts.same_day == -1}
        for name, inside in wanted.items():
            if not inside.any():
                assert name not in rows or rows[name][column] == "–"
                continue
            by_user: dict[int, list[float]] = {}
            for user, rank in zip(facts.user[inside], ranks[inside], strict=True):
                by_user.setdefault(user, []).append(gain(rank))
            mean = sum(sum(v) / len(v) for v in by_user.values()) / len(by_user)
            mark = " †" if len(by_user) < FEW else ""
            assert rows[name][column] == f"{inside.sum()} ({inside.mean():.0%}): {mean:.4f}{mark}", name


def test_trained_models_stand_beside_it(store: RecordStore, suite: str) -> None:
    """Two seeds of SASRec, which several suites have; means of rows by hand, and who cannot be found."""
    assert "## Trained models" not in page_of(store, suite)
    random = np.random.default_rng(3)
    for seed in (0, 1):
        store.write(record_of("bear_office", "sasrec", seed, profile="paper"), ranks_of(random, BEAR, BEAR_USERS),
                    ranks_of(random, BEAR, BEAR_USERS))
    store.write(record_of("apao_office", "sasrec", 0, profile="smoke"), ranks_of(random, OFFICE, None),
                ranks_of(random, OFFICE, None))
    text = page_of(store, suite)
    part = text.split("## Trained models over item ids")[1].split("## Where")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines()
             if line.startswith("|") and "_office" in line]
    assert [line[:3] for line in cells] == [["bear_office", "Popularity", "–"],
                                                ["bear_office", "SASRec (RecBole, CE)", "2"]]
    own = [r for r in store.read_all() if r.dataset == "bear_office" and r.seed in (0, 1) and "SASRec" in r.label]
    ndcg = np.mean([[gain(rank) for rank in store.read_ranks(r).ranks] for r in own])
    assert cells[1][3].startswith(f"{ndcg:.4f} [") and cells[0][3] == table_rows("\n" + text, "")["bear_office"][4]
    facts = test_users.find_users(store, "bear_office", own[0].split_fingerprint)
    assert f"which they cannot learn: {(facts.target_count == 0).mean():.0%} on bear_office." in text


def test_data_sets_that_are_missing(store: RecordStore, suite: str) -> None:
    every = store.read_all()
    text = page_of(store, suite, [r for r in every if r.dataset == "apao_office"])
    assert list(table_rows("\n" + text, "")) == ["apao_office"]
    assert ("Not here, as no run on the whole data is stored: apao_grocery, apao_beauty, apao_yelp, bear_office, "
            "bear_book, bear_toy, bear_clothing.") in text
    movies = record_of("ml-100k", "item_knn", 0)
    assert "Without a printed row, so in the suite's report alone: ml-100k." in page_of(store, suite, [*every, movies])
    assert "training-free.md" not in pages_of(store, suite, [movies])
    thinned = record_of("apao_office", "item_knn", 0, profile="smoke")
    assert thinned.config["split"]["max_users"]
    assert "training-free.md" not in pages_of(store, suite, [thinned])


def test_how_rows_were_tuned_and_which_are_missing(store: RecordStore, suite: str) -> None:
    every = store.read_all()
    material = ReportData.of(load_suite(suite), every, store.root)
    row = next(r for r in every if (r.dataset, r.label) == ("apao_office", "Item-kNN"))
    trial = SimpleNamespace(is_trial=True, config={"baseline": {"name": "item_knn"}}, dataset="apao_office",
                            profile=row.profile, method=row.method, metrics={"valid_ndcg@10": 0.2})
    other = SimpleNamespace(**{**vars(trial), "method": "another", "metrics": {"valid_ndcg@10": 0.3}})
    untuned = training_free.tuning(beside_printed(material), [*every, trial, other])
    assert untuned == "", "the row has other settings than the best trial"
    rows = table_rows("\n\n" + training_free.tuning(beside_printed(material), [*every, trial, trial]), "")
    assert rows == {"Popularity": ["0", "0"], "Item-kNN": ["2", "0"]}
    some = [r for r in every if (r.dataset, r.label) != ("bear_office", "Item-kNN")]
    assert "Our row is the best of 2 in validation (not run: bear_office Item-kNN);" in page_of(store, suite, some)


def test_only_suites_that_name_it_have_the_page(store: RecordStore) -> None:
    assert "training-free.md" not in pages_of(store, "apao")
    assert file_forms.PAGES == ("training-free",)


def test_it_is_short_linked_and_the_same_twice(store: RecordStore, suite: str) -> None:
    first, again = (pages_of(store, suite, records, drawn=True) for records in (None, store.read_all()[::-1]))
    assert first == again
    text = first["training-free.md"].decode()
    assert len(re.findall(r"[A-Za-z][\w'-]*", re.sub(r"\(\S+\)", "", text))) <= 800
    assert "![" not in text, "a figure of two data sets shows nothing"
    assert f"- [{training_free.TITLE}](training-free.md)" in first["index.md"].decode()


def test_all_data_sets_are_still_few_words(store: RecordStore, suite: str) -> None:
    """Eight data sets, as many as papers print rows on."""
    ranks = {dataset: (store.read_ranks(record), store.read_ranks(record, unseen=True))
             for dataset in ("apao_office", "bear_office") for record in store.read_all() if record.dataset == dataset}
    for dataset in ("apao_beauty", "apao_grocery", "apao_yelp", "bear_toy", "bear_clothing", "bear_book"):
        record = record_of(dataset, "item_knn", 0, profile="paper")
        like = dataset.split("_")[0] + "_office"
        store.write(record, *ranks[like])
        facts = test_users.find_users(store, like, next(
            r.split_fingerprint for r in store.read_all() if r.dataset == like))
        test_users.write_users(test_users.path_of(store, dataset, record.split_fingerprint),
                               replace(facts, fingerprint=record.split_fingerprint))
    files = pages_of(store, suite, drawn=True)
    text = files["training-free.md"].decode()
    picture, = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert b"<svg" in files[picture] and files[picture.replace(".svg", ".pdf")].startswith(b"%PDF")
    assert "Not here" not in text and "of 8 data sets" in text
    assert "bear_book brings no validation rows: the last 10% of its training rows validate." in text
    assert len(re.findall(r"[A-Za-z][\w'-]*", re.sub(r"\(\S+\)", "", text))) <= 800


def test_real_data(tmp_path: Path, suite: str, data_dir: Path) -> None:
    """APAO's Office: item-kNN is above every printed row, and the report has all groups."""
    results = tmp_path / "office"
    assert main(["run", "--suite", suite, "--profile", "paper", "--datasets", "apao_office", "--data-dir",
                 str(data_dir), "--results", str(results), "--threads", "1"]) == 0
    text = (results / "reports" / "training-free.md").read_text()
    assert table_rows("\n" + text, "")["apao_office"][3:5] == ["Item-kNN", "0.0434 [0.0388, 0.0485]"]
    assert "On 1 of 1 data sets" in text


def test_the_readme_has_the_numbers_of_the_reports(store: RecordStore, suite: str) -> None:
    part = readme_part.training_free(page_of(store, suite))
    assert part.startswith("**On ") and len(table_rows("\n" + part, "")["apao_office"]) == 6
    readme = README.read_text(encoding="utf-8")
    assert {name: between(readme, name)[1] for name in PARTS} == parts()
