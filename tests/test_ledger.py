"""The ledger: settings and rows that exist, effects from records, one rendering."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from genrec_bench.cli import main
from genrec_bench.core import registry, settings
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical
from genrec_bench.experiments import suite_files
from genrec_bench.experiments.config import SECTIONS
from genrec_bench.reporting.ledger import Entry, load_ledger, render_ledger
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results.records import RunRecord
from tests.small_records import record_of, stored

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = [(method, entry) for method in load_ledger() for entry in method.entry]
CHOICES = [entry for _, entry in ENTRIES if entry.setting]
MEASURED = [entry for entry in CHOICES if entry.effect]


def name_of(entry: Entry) -> str:
    return f"{entry.setting}-{entry.key}"


@pytest.mark.parametrize("entry", CHOICES, ids=name_of)
def test_every_setting_exists_and_allows_every_value(entry: Entry) -> None:
    part, _, key = entry.setting.partition(".")
    cls = SECTIONS[part] if part in SECTIONS else registry.objectives.get(part)
    field = next((f for f in dataclasses.fields(cls) if f.name == key), None)
    assert field is not None, f"{part} has no setting {key}"
    assert canonical(field.default) == canonical(entry.default)
    for reading in entry.readings:
        assert canonical(getattr(settings.build(cls, {key: reading.value}, part), key)) == canonical(reading.value)


@pytest.mark.parametrize("entry", CHOICES, ids=name_of)
def test_all_values_of_a_closed_choice_are_there(entry: Entry) -> None:
    part, _, key = entry.setting.partition(".")
    cls = SECTIONS[part] if part in SECTIONS else registry.objectives.get(part)
    choices = next(f for f in dataclasses.fields(cls) if f.name == key).metadata["choices"]
    shared = [e for e in CHOICES if e.setting == entry.setting]
    assert choices is None or set(choices) == {r.value for e in shared for r in e.readings}


@pytest.mark.parametrize("entry", MEASURED, ids=name_of)
def test_every_row_exists_and_has_the_value_of_its_reading(entry: Entry) -> None:
    rows = {row["label"]: row for row in suite_files.load_suite(entry.effect.suite)["row"] if "label" in row}
    part, _, key = entry.setting.partition(".")
    for reading in entry.readings:
        row = rows[reading.row or entry.effect.row]
        specs = {**{o["name"]: o for o in row["objective"]}, **{s: row.get(s, {}) for s in SECTIONS}}
        assert part in specs
        if reading.row or reading.value == entry.default:
            assert canonical(specs[part].get(key, entry.default)) == canonical(reading.value)


def test_the_choices_that_must_be_told_are_there() -> None:
    assert {entry.setting for entry in CHOICES} >= {
        "apao.weights", "apao.eta", "apao.divide_by_length", "apao.negative_scale", "apao.released_numerics",
        "bear.form", "bear.direction", "bear.few_children", "bear.vocabulary", "bear.weight_released",
        "bear_beam.direction", "cross_entropy.eos", "cross_entropy.reduction", "dmpo.form", "dpo.num_negatives",
        "s_dpo.reference", "msl.tau", "msl.skip_forced", "decoding.temperature", "decoding.normaliser",
        "training.selection", "training.accumulation_reduction", "training.schedule", "training.decay_biases",
        "training.dropout", "msl.eos", "negatives.pool", "negatives.redraw"}
    for method, entry in ENTRIES:
        assert entry.paper or entry.pseudo_code or entry.code, f"{method.title}, {entry.key}: no source says anything"


def test_the_order_of_records_does_not_matter(tmp_path: Path) -> None:
    records = [*runs(), *runs(label=LOSS)]
    first, second = (render_ledger(r, tmp_path / f"{n}.md") for n, r in enumerate((records, records[::-1])))
    assert first.read_bytes() == second.read_bytes() and b"Effect on ml-100k" in first.read_bytes()


def section(records: list[RunRecord], folder: Path,
            heading: str = "### The same question for cross-entropy, whose rule") -> str:
    """The part of the ledger on one entry: the selection of cross-entropy."""
    text = render_ledger(records, folder / "ledger.md").read_text(encoding="utf-8")
    return text.split(heading)[1].split("###")[0]


def effect(text: str) -> list[list[str]]:
    """The cells of the table of effects."""
    lines = text.split("Effect on")[1].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]


def runs(seeds: tuple[int, ...] = (0, 1, 2), label: str = "TIGER + cross-entropy", dataset: str = "ml-100k",
         **changes) -> list[RunRecord]:
    row = next(row for row in load_suite("apao").rows if row.label == label)
    return [record_of(dataset, "tiger", seed, row=row.source, **changes) for seed in seeds]


LOSS = "TIGER + cross-entropy, selected by loss"


def test_an_effect_needs_two_readings(tmp_path: Path) -> None:
    assert "not measured yet" in section([], tmp_path)
    assert "not measured yet" in section(runs(), tmp_path)
    text = section([*runs(), *runs((0,), LOSS)], tmp_path)
    assert "Effect on ml-100k, profile quick" in text and "not measured" not in text
    # the made-up records: 0.05 + 0.001 a seed, 30 s
    assert effect(text) == [['`"ndcg@10"`', "TIGER + cross-entropy", "", "3", "0.0510 ± 0.0010", "30.0"],
                            ['`"loss"`', LOSS, "", "1 of 3 †", "0.0500", "30.0"]]


def test_other_data_profiles_and_smoke_are_no_comparison(tmp_path: Path) -> None:
    assert "not measured yet" in section([*runs(), *runs(label=LOSS, profile="paper")], tmp_path)
    assert "not measured yet" in section([*runs(profile="smoke"), *runs(label=LOSS, profile="smoke")], tmp_path)
    assert "not measured yet" in section([*runs(), *runs(label=LOSS, dataset="apao_office")], tmp_path)
    assert "not measured yet" in section([*runs(), *runs(label=LOSS, overrides={"training": {"epochs": 7}})], tmp_path)
    assert "Effect on" in section([*runs(), *runs(label=LOSS)], tmp_path)


def test_a_reading_without_a_row_is_its_rows_with_the_value_set(tmp_path: Path) -> None:
    """Measured by `--set`, as the ledger says: the setting alone is changed, else it is no reading."""
    label, heading = "TIGER + APAO-Pairwise", "### How the pairwise loss is computed"
    released = {"apao": {"released_numerics": True}}
    text = section([*runs(label=label), *runs((0, 1), label, overrides=released)], tmp_path, heading)
    assert "`--set apao.released_numerics=true`" in text
    assert effect(text) == [["`false`", label, "", "3", "0.0510 ± 0.0010", "30.0"],
                            ["`true`", label, "", "2 of 3 †", "0.0505 ± 0.0007", "30.0"]]
    more = {**released, "training": {"epochs": 7}}
    for records in (runs(label=label, overrides=more), runs(label=label, overrides=released, profile="smoke")):
        assert "not measured yet" in section([*runs(label=label), *records], tmp_path, heading)


def test_what_else_differs_is_told(tmp_path: Path) -> None:
    """Weights that are given come with their values."""
    label = "TIGER + APAO-Pointwise"
    records = [*runs(label=label), *runs(label=f"{label}, static weights")]
    text = section(records, tmp_path, "### How the weights of the prefixes")
    assert [cells[2] for cells in effect(text)] == ["", "apao.eta = 0.0001, apao.static_weights"]


def test_another_decoder_is_another_row(tmp_path: Path) -> None:
    """Cross-entropy decoded with the trie is measured by its own entry and enters no other."""
    trie = runs(label="TIGER + cross-entropy, trie decoding")
    assert "not measured yet" in section([*runs(), *trie], tmp_path)
    text = (tmp_path / "ledger.md").read_text(encoding="utf-8")
    assert text.count("Effect on") == 1 and "TIGER + cross-entropy, trie decoding" in text


GOOD = """
title = "A"
source = [{ what = "paper", where = "there" }]
[[entry]]
key = "one"
what = "What?"
paper = "This."
setting = "apao.form"
readings = [{ value = "pointwise", reading = "it" }]
default = "pointwise"
why = "So."
"""


@pytest.mark.parametrize(("old", "new", "message"), [
    ('default = "pointwise"', 'default = "pairwise"', "default among them"),
    ('setting = "apao.form"', "", "default among them"),
    ('why = "So."', "", "needs a value for why"),
    ("why", "wyh", "Did you mean 'why'"),
    ('"it" }]', '"it" }, { value = "pointwise", reading = "that" }]', "must stand once"),
    ("title", "title =", "not valid TOML"),
])
def test_a_damaged_file_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert len(load_ledger(tmp_path)) == 1
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_ledger(tmp_path)
    assert "a.toml" in str(caught.value)


def test_the_ledger_of_the_documentation_is_that_of_no_records(tmp_path: Path) -> None:
    """Made again by `report --ledger --reports docs`; other results have theirs beside their reports."""
    results = tmp_path / "records"
    assert main(["report", "--ledger", "--results", str(results)]) == 0
    written = results / "reports" / "ledger.md"
    assert written.read_bytes() == (ROOT / "docs" / "ledger.md").read_bytes()
    stored(results, [*runs(), *runs(label=LOSS)])
    assert main(["report", "--ledger", "--results", str(results)]) == 0 and b"Effect on" in written.read_bytes()
