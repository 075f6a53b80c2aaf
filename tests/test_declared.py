"""Suite, profile and baseline files are read strictly: every mistake names the file, and the nearest right word."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrec_bench.cli import main
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.experiments import file_forms, grid, suite_files
from genrec_bench.experiments.overrides import parse_overrides

SUITE = """
[suite]
name = "mine"
title = "Mine"

[[row]]
baseline = "popularity"

[[row]]
label = "TIGER"
backbone = { name = "tiger" }
objective = [{ name = "cross_entropy" }]
paper_row = { backbone = "TIGER", method = "CE" }
"""
PROFILE = """
title = "mine"
seeds = [0]
datasets = ["ml-100k"]
[settings.training]
epochs = 3
[datasets_settings.ml-100k.item_knn]
decay = 0.5
"""
BASELINE = """
[settings]
decay = 0.6
[profiles.quick]
decay = 0.5
[sources]
decay = "ours"
"""
GOOD = {"suite": SUITE, "profile": PROFILE, "baseline": BASELINE}
LOAD: dict[str, Callable[..., dict[str, Any]]] = {
    "suite": suite_files.load_suite, "profile": suite_files.load_profile, "baseline": suite_files.load_baseline}

# name -> (kind, text that is replaced, by what, what the message must hold beside the file)
WRONG = {
    "key of a row": ("suite", "objective =", "objectve =", ["row 2", "'objectve'", "'objective'"]),
    "tokenizer misspelt": ("suite", "paper_row = {", 'tokeniser = { name = "given" }\npaper_row = {',
                           ["row 2", "'tokeniser'", "'tokenizer'"]),
    "key of the file": ("suite", "[suite]", "splitt = 3\n[suite]", ["'splitt'", "'suite'"]),
    "key of the head": ("suite", "title =", "titel =", ["[suite]", "'titel'", "'title'"]),
    "key of the paper's row": ("suite", "method =", "methd =", ["row 2", "paper_row", "'methd'", "'method'"]),
    "paper's row a text": ("suite", '{ backbone = "TIGER", method = "CE" }', '"TIGER"', ["paper_row", "a table"]),
    "one bracket": ("suite", SUITE[SUITE.index("[[row]]"):], '[row]\nbaseline = "popularity"', ["[[row]]"]),
    "no head": ("suite", '[suite]\nname = "mine"\ntitle = "Mine"', "", ["a value for suite"]),
    "head a number": ("suite", '[suite]\nname = "mine"\ntitle = "Mine"', "suite = 3", ["[suite] must be a table"]),
    "no title": ("suite", 'title = "Mine"', "", ["[suite]", "a value for title"]),
    "title a number": ("suite", '"Mine"', "3", ["title must be of type str"]),
    "name of another file": ("suite", '"mine"', '"yours"', ["'yours'", "'mine'"]),
    "no label": ("suite", 'label = "TIGER"', "", ["row 2", "a value for label"]),
    "an objective without name": ("suite", '[{ name = "cross_entropy" }]', "[{ weight = 2.0 }]", ["objective", "name"]),
    "objective no list": ("suite", '[{ name = "cross_entropy" }]', '"cross_entropy"', ["must be a list"]),
    "baseline and more": ("suite", 'baseline = "popularity"', 'baseline = "popularity"\nlabel = "P"',
                          ["row 1", "label"]),
    "includes nobody": ("suite", SUITE[SUITE.index("[[row]]"):], 'includes = ["mnie"]', ["includes", "'mine'"]),
    "includes and rows": ("suite", 'title = "Mine"', 'title = "Mine"\nincludes = ["other"]', ["both"]),
    "no rows": ("suite", SUITE[SUITE.index("[[row]]"):], "", ["neither"]),
    "broken": ("suite", "[suite]", "[suite", ["not valid TOML", "line 2"]),
    "key of a profile": ("profile", "seeds =", "seed =", ["'seed'", "'seeds'"]),
    "seeds no list": ("profile", "[0]", "0", ["seeds must be a list"]),
    "no seeds": ("profile", "[0]", "[]", ["seeds is empty"]),
    "seed beyond 64 bits": ("profile", "[0]", "[9223372036854775808]", ["seeds must be at most"]),
    "negative seed": ("profile", "[0]", "[-1]", ["seeds must be at least 0"]),
    "settings a number": ("profile", "[settings.training]\nepochs = 3", "[settings]\nepochs = 3",
                          ["settings.epochs", "a table"]),
    "dataset part a number": ("profile", "[datasets_settings.ml-100k.item_knn]", "[datasets_settings.ml-100k]",
                              ["datasets_settings.ml-100k.decay", "a table"]),
    "broken profile": ("profile", "seeds = [0]", "seeds = [0", ["not valid TOML"]),
    "key of a baseline": ("baseline", "[sources]", "[source]", ["'source'", "'sources'"]),
    "settings a text": ("baseline", "[settings]\ndecay = 0.6", 'settings = "decay"', ["settings must be of type dict"]),
    "profile of a baseline": ("baseline", "[profiles.quick]", "[profiles.quik]", ["'quik'", "'quick'"]),
    "settings of a profile": ("baseline", "[profiles.quick]\ndecay = 0.5", "[profiles]\nquick = 3", ["profiles.quick"]),
    "broken baseline": ("baseline", "decay = 0.6", "decay = no", ["not valid TOML"]),
}


@pytest.mark.parametrize("kind", GOOD)
def test_the_good_files_are_good(kind: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD[kind])
    assert LOAD[kind]("mine", tmp_path)
    if kind == "baseline":  # a registered baseline needs no file
        assert LOAD[kind]("mien", tmp_path) == {}
        return
    assert getattr(suite_files, f"{kind}_names")(tmp_path) == ["mine"]
    with pytest.raises(UserError, match="Did you mean 'mine'"):
        LOAD[kind]("mien", tmp_path)


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_names_file_and_place(case: str, tmp_path: Path) -> None:
    kind, old, new, held = WRONG[case]
    assert GOOD[kind].count(old) >= 1
    (tmp_path / "other.toml").write_text(SUITE.replace('"mine"', '"other"'))
    (tmp_path / "mine.toml").write_text(GOOD[kind].replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        LOAD[kind]("mine", tmp_path)
    message = str(caught.value)
    assert all(word in message for word in [str(tmp_path / "mine.toml"), *held]), message
    assert "\n" not in message


def test_a_suite_of_suites_includes_no_other(tmp_path: Path) -> None:
    for name, part in (("mine", "other"), ("other", "mine")):
        (tmp_path / f"{name}.toml").write_text(f'[suite]\nname = "{name}"\ntitle = "x"\nincludes = ["{part}"]')
    with pytest.raises(UserError, match="'other' includes suites itself"):
        suite_files.load_suite("mine", tmp_path)


def test_the_command_line_says_it_too(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback where a file is broken, also from `list`."""
    monkeypatch.setitem(suite_files.FOLDERS, "suite", tmp_path)
    (tmp_path / "mine.toml").write_text("[suite")
    for words in (["list", "suites"], ["run", "--suite", "mine", "--results", str(tmp_path / "results")]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and "mine.toml is not valid TOML" in error and error.count("\n") == 1
    assert not (tmp_path / "results").exists()


# What is checked where runs are planned

@pytest.fixture()
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of profiles; suite `mine` with one baseline and one generative row."""
    (tmp_path / "suites").mkdir()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "suites" / "mine.toml").write_text(SUITE)
    monkeypatch.setitem(suite_files.FOLDERS, "suite", tmp_path / "suites")
    monkeypatch.setitem(suite_files.FOLDERS, "profile", tmp_path / "profiles")
    for profile in ("quick", "smoke"):  # the baselines' files name them
        (tmp_path / "profiles" / f"{profile}.toml").write_text(PROFILE)
    return tmp_path / "profiles" / "mine.toml"


@pytest.mark.parametrize(("old", "new", "held"), [
    ("settings.training", "settings.trainng", ["settings", "'trainng'", "'training'"]),
    ("epochs", "epohcs", ["settings.training", "'epohcs'", "'epochs'"]),
    ("ml-100k.item_knn", "ml-10k.item_knn", ["datasets_settings", "'ml-10k'", "'ml-100k'"]),
    ("ml-100k.item_knn", "folder.item_knn", ["datasets_settings", "'folder'"]),
    ("ml-100k.item_knn", "ml-100k.item_nnk", ["datasets_settings.ml-100k", "'item_nnk'", "'item_knn'"]),
    ("decay", "dekay", ["datasets_settings.ml-100k.item_knn", "'dekay'", "'decay'"]),
    ("settings.training", "settings.ml-100k", ["settings", "'ml-100k'"]),
])
def test_settings_of_a_profile_name_what_exists(old: str, new: str, held: list[str], mine: Path) -> None:
    mine.write_text(PROFILE.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        grid.expand(grid.Selection("mine", "mine"))
    assert all(word in str(caught.value) for word in [str(mine), *held]), str(caught.value)


def test_a_folder_never_takes_the_settings_of_a_dataset_of_its_name(mine: Path, tmp_path: Path) -> None:
    mine.write_text(PROFILE + "[datasets_settings.ml-100k.training]\nepochs = 7\n")
    (tmp_path / "ml-100k").mkdir()

    def epochs(dataset: str) -> set[int]:
        runs = grid.expand(grid.Selection("mine", "mine", datasets=(dataset,), baselines=()))
        return {run.training.epochs for run in runs}

    assert epochs("ml-100k") == {7} and epochs(str(tmp_path / "ml-100k")) == {3}


def expand(*pairs: str, **options: Any) -> list[Any]:
    return grid.expand(grid.Selection("apao", "smoke", overrides=parse_overrides(pairs), **options))


def test_another_rule_drops_what_the_profile_says_of_the_one_it_replaces() -> None:
    """Quick splits ml-100k by last_n with a number of test rows, which leave-one-out has not."""
    chosen = grid.Selection("apao", "quick", overrides=parse_overrides(["split.name=leave_one_out"]))
    split = grid.expand(chosen)[0].split
    assert split.name == "leave_one_out" and split.max_history == 5 and split.train_targets_per_user == 40
    with pytest.raises(UserError, match="unknown setting 'test_targets'"):
        expand("split.name=leave_one_out", "split.test_targets=3")
    with pytest.raises(UserError, match="unknown split 'last_m'.*Did you mean 'last_n'"):
        expand("split.name=last_m")


def test_lists_are_long_enough_for_the_selection_metric() -> None:
    with pytest.raises(UserError, match="evaluation.max_k must be at least 10, got 9"):
        expand("evaluation.max_k=9")
    assert expand("evaluation.max_k=10")


def test_a_backbone_may_refuse_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """`check()` of a backbone's settings is asked before any data are read."""
    def refuse(self: Any) -> None:
        raise UserError(f"no {self.name} of width {self.width}")

    monkeypatch.setattr(registry.backbones.get("tiger"), "check", refuse, raising=False)
    with pytest.raises(UserError, match="no tiger of width 32"):
        expand()


def test_the_classes_document_every_key() -> None:
    for name in ("SuiteFile", "SuiteHead", "SuiteRow", "PaperRow", "ProfileFile", "BaselineFile"):
        cls = getattr(file_forms, name)
        assert all(f.metadata["doc"] for f in dataclasses.fields(cls))
