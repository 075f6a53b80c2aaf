"""Which records stand in one row, which rows in one table, and what they are called."""

from dataclasses import replace
from pathlib import Path

import pytest

from genrec_bench.experiments.config import EvaluationConfig, SplitConfig, TrainingConfig
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.papers import load_paper
from genrec_bench.reporting.printed import why_not
from genrec_bench.reporting.rows import load_suite, row_of
from tests.small_records import LABELS, SEEDS, all_records, record_of, unseeded_elsewhere


def test_nothing_different_is_averaged():
    suite = load_suite("apao")
    base = [record_of("ml-100k", "tiger", s) for s in SEEDS]
    changed = [record_of("ml-100k", "tiger", 0, profile="smoke"),
               record_of("ml-100k", "tiger", 0, split=SplitConfig(train_targets_per_user=5)),
               record_of("ml-100k", "tiger", 0, evaluation=EvaluationConfig(exclude_history=True)),
               record_of("ml-100k", "tiger", 0, training=TrainingConfig(epochs=7))]
    blocks = arrange(suite, base + changed)
    assert len(blocks) == 4 and len({b.name for b in blocks}) == 4
    quick = next(b for b in blocks if any(len(g.seeds) == 3 for g in b.groups))
    assert sorted(g.label for g in quick.groups) == ["TIGER + cross-entropy (training.epochs=200)",
                                                     "TIGER + cross-entropy (training.epochs=7)"]
    assert {len(g.seeds) for b in blocks for g in b.groups} == {1, 3}
    assert any("exclude_history=True" in b.name for b in blocks)


def test_other_semantic_ids_are_another_row():
    records = [replace(record_of("ml-100k", "tiger", s), identity={"seed": s, "split_fingerprint": "same",
                                                                   "semantic_ids_fingerprint": ids * 32})
               for s, ids in ((0, "ab"), (1, "ab"), (2, "cd"))]
    block, = arrange(load_suite("apao"), records)
    assert [(g.label, g.seeds) for g in block.groups] == [
        ("TIGER + cross-entropy (semantic_ids_fingerprint=abababab)", (0, 1)),
        ("TIGER + cross-entropy (semantic_ids_fingerprint=cdcdcdcd)", (2,))]


def test_a_folder_of_ones_own_is_no_papers_dataset(tmp_path):
    """The folder is named like the paper's dataset, and its label is that name, as planning a run sets it."""
    folder = tmp_path / "apao_office"
    folder.mkdir()
    (folder / "x.inter.json").write_text("{}")
    configs = expand(Selection("apao", "paper", datasets=(str(folder),), baselines=(), seeds=(0,)))
    config = next(c for c in configs if c.label == "TIGER + cross-entropy")
    assert config.dataset["name"] == "folder" and config.dataset["label"] == "apao_office"
    own = replace(record_of("apao_office", "tiger", 0), run_id="own", config=config.to_dict())
    assert own.dataset == "apao_office"
    theirs, block = arrange(load_suite("apao"), [record_of("apao_office", "tiger", 0), own])
    assert theirs.name == "apao_office, profile paper" and block.name == "apao_office (folder), profile paper"
    assert block.dataset == "apao_office (folder)"
    assert why_not(theirs, load_paper("apao")) == ""
    assert "not among the paper's datasets" in why_not(block, load_paper("apao"))


def test_methods_without_randomness_stand_in_every_profile():
    suite, records = load_suite("apao"), unseeded_elsewhere()
    paper, quick = arrange(suite, records)
    assert (paper.profile, quick.profile) == ("paper", "quick")
    for block in (paper, quick):
        assert [g.label for g in block.groups] == list(LABELS.values())
    assert why_not(paper, load_paper("apao")) == ""
    only_paper = [r for r in records if r.profile == "paper" or r.label in ("Popularity", "Item-kNN")]
    block, = arrange(suite, only_paper)
    assert block.profile == "paper" and len(block.groups) == 4
    alone, = arrange(suite, [r for r in only_paper if r.label in ("Popularity", "Item-kNN")])
    assert alone.profile == "quick" and len(alone.groups) == 2


@pytest.mark.parametrize("what", ["split", "evaluation", "split_fingerprint", "engine"])
def test_methods_without_randomness_join_no_other_data(what):
    def identity(value):
        return {"seed": 0, "split_fingerprint": "a", "engine": 1, "dataset": {}} | (
            {what: value} if what in ("split_fingerprint", "engine") else {})

    other = {"split": {"split": SplitConfig(max_users=9)}, "evaluation": {"evaluation": EvaluationConfig(max_k=10)}}
    tiger = replace(record_of("apao_office", "tiger", 0), identity=identity("x"))
    knn = replace(record_of("apao_office", "item_knn", 0, profile="quick", **other.get(what, {})),
                  identity=identity("y"))
    assert [[g.row.key for g in b.groups] for b in arrange(load_suite("apao"), [tiger, knn])] in (
        [["tiger+cross_entropy"], ["item_knn"]], [["item_knn"], ["tiger+cross_entropy"]])


ROWS_IN_NUMBERS = """
[suite]
name = "numbers"
title = "Rows that differ in a number"
""" + "".join(f"""
[[row]]
label = "{label}"
backbone = {{ name = "tiger"{width} }}
objective = [{objective}]
{more}
""" for label, width, objective, more in (
    ("CE", "", '{ name = "cross_entropy" }', ""),
    ("CE, width 48", ", width = 48", '{ name = "cross_entropy" }', ""),
    ("CE, given IDs", "", '{ name = "cross_entropy" }', 'tokenizer = { name = "given" }'),
    ("DROS 0.2", "", '{ name = "dros", epsilon = 0.2 }', 'paper_row = { backbone = "TIGER", method = "DPO" }'),
    ("DROS 0.1", "", '{ name = "dros", epsilon = 0.1 }', ""),
    ("CE + DROS", "", '{ name = "cross_entropy" }, { name = "dros", epsilon = 0.1 }', ""),
    ("CE + half DROS", "", '{ name = "cross_entropy" }, { name = "dros", epsilon = 0.1, weight = 0.5 }', "")))


def numbered(tmp_path: Path, *variants: dict) -> list[tuple[str, int]]:
    """(label, number of seeds) of the rows that records of one seed with these settings make."""
    (tmp_path / "numbers.toml").write_text(ROWS_IN_NUMBERS)
    block, = arrange(load_suite("numbers", tmp_path), [record_of("ml-100k", "tiger", 0, **v) for v in variants])
    return [(g.label, len(g.records)) for g in block.groups]


def dros(*parts, **settings) -> dict:
    return {"objective": (*({"name": p} for p in parts), {"name": "dros", **settings})}


def test_rows_that_differ_in_a_number(tmp_path):
    """Every record in one row: the one that states most of what the run has."""
    assert numbered(tmp_path, {}, {"backbone": {"name": "tiger", "width": 48.0}}, {"tokenizer": {"name": "given"}},
                    dros(epsilon=0.1), dros(epsilon=0.2), dros("cross_entropy", epsilon=0.1),
                    dros("cross_entropy", epsilon=0.1, weight=0.5)) == [
        (label, 1) for label in ("CE", "CE, width 48", "CE, given IDs", "DROS 0.2", "DROS 0.1", "CE + DROS",
                                 "CE + half DROS")]
    (tmp_path / "numbers.toml").write_text(ROWS_IN_NUMBERS)
    keys = [row.key for row in load_suite("numbers", tmp_path).rows]
    assert len(set(keys)) == 7 and keys[0] == "tiger+cross_entropy"


def test_a_changed_setting_of_a_row_is_said(tmp_path):
    """`--set` can take from a row what it states: the label then says so, even where the row is alone."""
    assert numbered(tmp_path, dros(epsilon=0.3)) == [("DROS 0.2 (objective.epsilon=0.3)", 1)]
    assert numbered(tmp_path, dros("cross_entropy", epsilon=0.1, weight=0.25)) == [
        ("CE + half DROS (objective.1.weight=0.25)", 1)]
    assert numbered(tmp_path, dros("cross_entropy", epsilon=0.7, weight=0.5)) == [
        ("CE + half DROS (objective.1.epsilon=0.7)", 1)]
    block, = arrange(load_suite("numbers", tmp_path), [record_of("apao_office", "tiger", 0, **dros(epsilon=0.3))])
    assert "objective.epsilon not as the suite's row" in why_not(block, load_paper("apao"))


def test_a_label_names_three_settings_at_most(tmp_path):
    changed = {"epochs": 7, "patience": 3, "batch_size": 9, "accumulation": 2, "clip_norm": 0.5}
    labels = [label for label, _ in numbered(tmp_path, {}, {"training": TrainingConfig(**changed)},
                                             {"training": TrainingConfig(**{**changed, "valid_every": 2})})]
    assert len(set(labels)) == 3
    for label in labels:
        assert label.count("=") == 3 and label.endswith(", and 3 more)")
        assert "training.valid_every=" in label  # without it two of them would read the same


def test_records_find_their_row():
    suite, found = load_suite("apao"), {}
    for record in all_records():
        number, changed = row_of(record.config, suite.rows)
        assert not changed
        found.setdefault(suite.rows[number].key, []).append(record.label)
    assert set(found["sasrec"]) == {"SASRec"} and len(found["tiger+cross_entropy"]) == 6
    rows = {row.key: row for row in suite.rows}
    assert not rows["popularity"].seeded and rows["sasrec"].seeded
