"""`compare` as a newcomer uses it: an objective in a file, a made reference, a verdict; and whatever may be wrong."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec_bench import api
from genrec_bench.cli import main
from genrec_bench.core import registry
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.running import folders
from tests.conftest import toy_codes
from tests.test_cli import MAX_ERROR_LINES, ROOT, TINY, environment, files

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

EXAMPLE = ROOT / "examples" / "label_smoothing.py"
SETTINGS = {"tiger": {"width": 16, "head_width": 8, "feed_forward_width": 32}}
CLOSE = "TIGER + cross-entropy"


@dataclass(frozen=True)
class World:
    """A folder of data, the baselines that come with the repository here, and a folder for results."""

    data: Path
    reference: Path
    results: Path

    def words(self, *more: str | Path, objective: str | Path = f"{EXAMPLE}:LabelSmoothing") -> list[str]:
        return [str(w) for w in ("compare", "--objective", objective, "--profile", "smoke", "--datasets", self.data,
                                 "--results", self.results, "--jobs", "1", *TINY, *more)]

    def compare(self, *more: str | Path, **objective: str | Path) -> int:
        return main(self.words(*more, **objective))

    @property
    def records(self) -> list[RunRecord]:
        return sorted(RecordStore(self.results).read_all(), key=lambda r: (r.label, r.seed))

    def report(self, name: str = "label_smoothing") -> str:
        return (self.results / "reports/compare" / name / "comparison.md").read_text(encoding="utf-8")

    def rows(self, name: str = "label_smoothing") -> dict[str, dict[str, str]]:
        with open(self.results / "reports/compare" / name / "comparison.csv", newline="", encoding="utf-8") as file:
            return {row["against"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, toy_interactions: Any) -> tuple[Path, Path]:
    """(data, reference): the toy, and popularity, item-kNN and TIGER + cross-entropy at seeds 0 and 1 on it."""
    folder = tmp_path_factory.mktemp("compare") / "toy"
    folder.mkdir()
    inter = {u: s.tolist() for u, s in zip(toy_interactions.user_ids, toy_interactions.sequences, strict=True)}
    (folder / "Toy.inter.json").write_text(json.dumps(inter))
    (folder / "Toy.index.json").write_text(json.dumps({str(i): codes for i, codes in enumerate(toy_codes().tolist())}))
    reference = folder.parent / "reference"
    assert main(["run", "--suite", "apao", "--profile", "smoke", "--datasets", str(folder), "--row", CLOSE, "--seeds",
                 "0,1", "--baselines", "popularity,item_knn", *TINY, "--jobs", "1", "--results", str(reference)]) == 0
    return folder, reference


@pytest.fixture
def world(stored: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(folders, "REFERENCE", stored[1])
    return World(*stored, tmp_path / "results")


@pytest.fixture(autouse=True)
def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it, and the papers' data are not looked for."""
    monkeypatch.delenv("GENREC_BENCH_DATA", raising=False)
    registry.objectives.names()
    monkeypatch.setattr(registry.objectives, "_classes", dict(registry.objectives._classes))
    yield
    for name in [n for n in sys.modules if n.startswith("genrec_bench_plugin_") or n == EXAMPLE.stem]:
        del sys.modules[name]


def changed(folder: Path, text: str, name: str = "my_loss.py") -> str:
    """A file of the user's own with the class MyLoss, whose loss has this body."""
    (folder / name).write_text('"""Mine."""\nimport torch\nfrom genrec_bench.objectives.base import Objective\n\n\n'
                               'class MyLoss(Objective):\n    """Mine."""\n\n    def loss(self, inputs):\n'
                               f'        {text}\n', encoding="utf-8")
    return f"{folder / name}:MyLoss"


# From end to end

def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 30


def test_the_example_from_end_to_end(world: World, capsys: Any) -> None:
    """Seeds are those of the stored runs; all verdicts in one sentence; the report has one a stored baseline."""
    before = files(world.reference)
    assert world.compare() == 0
    out, err = capsys.readouterr()
    summary, missing, report = out.splitlines()
    sentences = [line.removeprefix("- ") for line in world.report().splitlines() if line.startswith("- ")][:3]
    assert "label_smoothing: 13 contract checks, none failed." in err
    assert [(r.label, r.seed) for r in world.records] == [("TIGER + label_smoothing", s) for s in (0, 1)]
    assert len(sentences) == 3 and all(any(name in s for s in sentences) for name in ("Popularity", "Item-kNN", CLOSE))
    for sentence in sentences:
        assert re.match(r"(No difference detected between .* and|TIGER \+ label_smoothing is (better|worse) than) ",
                        sentence) and re.search(r"[+-]0\.\d{4} \[[+-]0\.\d{4}, [+-]0\.\d{4}\], p [=<] ", sentence)
        assert ("would have got a verdict in" in sentence) == sentence.startswith("No difference")
    assert summary.startswith("TIGER + label_smoothing on toy (folder), profile smoke: ")
    undecided = sum(sentence.startswith("No difference") for sentence in sentences)
    assert (f"no difference detected from {undecided} of 3" in summary) == (undecided > 0)
    assert missing.startswith("No stored record yet: SASRec") and CLOSE not in missing and "Item-kNN" not in missing
    text, rows = world.report(), world.rows()
    assert report == f"report: {world.results / 'reports/compare/label_smoothing/comparison.md'}"
    assert set(rows) == {"Popularity", "Item-kNN", CLOSE} and rows[CLOSE]["seeds"] == "0 1"
    assert float(rows[CLOSE]["train_seconds_ratio"]) > 0 and rows["Popularity"]["train_seconds_ratio"] == ""
    assert "same backbone" in text and "not generative" in text
    kept = files(world.results)
    assert world.compare() == 0
    out, err = capsys.readouterr()
    assert "seed" not in err, "nothing was trained again"
    assert {k: v[0] for k, v in files(world.results).items()} == {k: v[0] for k, v in kept.items()}
    assert files(world.reference) == before


def test_python_gives_the_same_numbers(world: World, tmp_path: Path, capsys: Any,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """The same runs by name, the same ranks, the same verdicts as the command."""
    assert world.compare() == 0
    printed = capsys.readouterr().out.splitlines()
    del registry.objectives._classes["label_smoothing"]
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    mine = importlib.import_module(EXAMPLE.stem).LabelSmoothing
    verdict = api.compare(mine, profile="smoke", datasets=[world.data], results=tmp_path / "python", **SETTINGS)
    assert list(verdict.summary) == printed[:-2] and len(verdict.missing) > 5
    assert len(verdict.sentences) == 3 and all(f"- {sentence}\n" in world.report() for sentence in verdict.sentences)
    assert [r.run_id for r in verdict.records] == [r.run_id for r in world.records]
    stores = RecordStore(world.results), RecordStore(tmp_path / "python")
    for record in verdict.records:
        assert stores[0].ranks_bytes(record) == stores[1].ranks_bytes(record)
        assert stores[0].read(record.run_id).metrics == record.metrics


def test_two_processes_load_the_file_and_give_the_same_numbers(world: World, tmp_path: Path) -> None:
    assert world.compare() == 0
    words = world.words("--results", tmp_path / "two", "--jobs", "2")
    assert main(words) == 0
    store = RecordStore(tmp_path / "two")
    assert [r.run_id for r in world.records] == [store.read(r.run_id).run_id for r in world.records]
    for record in world.records:
        assert store.read(record.run_id).metrics == record.metrics
        assert store.read(record.run_id).training == record.training
        assert store.ranks_bytes(record) == RecordStore(world.results).ranks_bytes(record)


def test_a_missing_baseline_is_made_by_its_command(world: World, capsys: Any) -> None:
    """The command that the report gives puts the record where it is looked for first, on the same settings."""
    assert world.compare("--seeds", "1") == 0
    command = dict(re.findall(r"^- (.*): `(.*)`$", world.report(), re.M))["TIGER + MSL on toy"]
    words = shlex.split(command)
    assert words[:2] == ["python", "benchmark.py"] and words[-2:] == ["--results", str(world.results)]
    assert "--row 'TIGER + MSL' --seeds 1 --set tiger.width=16" in command
    assert main(words[2:]) == 0
    capsys.readouterr()
    assert world.compare("--seeds", "1") == 0
    assert "TIGER + MSL on toy: `" not in world.report() and world.rows()["TIGER + MSL"]["seeds"] == "1"


def test_a_trial_is_no_opponent(world: World, tmp_path: Path, capsys: Any) -> None:
    """Neither its seed nor its settings: the comparison is the one without it."""
    assert world.compare() == 0
    alone = world.rows()
    suite = tmp_path / "mine.toml"
    suite.write_text('[suite]\nname = "mine"\ntitle = "x"\n'
                     '[tune.item_knn]\ndecay = [0.3]\n[tune.training]\nepochs = [1]\n'
                     '[[row]]\nbaseline = "item_knn"\n[[row]]\nlabel = "TIGER + cross-entropy"\n'
                     'backbone = { name = "tiger" }\nobjective = [{ name = "cross_entropy" }]\n')
    assert main(["tune", "--suite", str(suite), "--profile", "smoke", "--datasets", str(world.data), "--trials", "2",
                 *TINY, "--jobs", "1", "--results", str(world.results)]) == 0
    assert len(world.records) == 4 + len(RecordStore(world.results).read_results()) == 6
    assert world.compare() == 0
    told = ("seeds", "mean", "mean_against", "difference", "p_holm")
    assert {name: [row[k] for k in told] for name, row in world.rows().items()} == {
        name: [row[k] for k in told] for name, row in alone.items()}


def test_a_changed_file_is_another_run(world: World, tmp_path: Path) -> None:
    mine = changed(tmp_path, "return -inputs.target_token_logps.sum(dim=1)")
    assert world.compare("--seeds", "0", objective=mine) == 0
    changed(tmp_path, "return -inputs.target_token_logps.sum(dim=1) / 2")
    assert world.compare("--seeds", "0", objective=mine) == 0
    assert len({r.run_id for r in world.records}) == 2
    assert len({r.identity["objectives"][0]["source"] for r in world.records}) == 2
    assert set(world.rows("my_loss")) == {"Popularity", "Item-kNN", CLOSE}, "what it was is no opponent"


def test_beside_others_and_what_is_stored_is_not_trained(world: World, capsys: Any) -> None:
    assert world.compare("--with", "cross_entropy", "--weight", "0.5", "--seeds", "0") == 0
    (record,) = world.records
    assert record.label == "TIGER + cross_entropy + 0.5 label_smoothing"
    assert [(o["name"], o.get("weight", 1.0)) for o in record.config["objectives"]] == [("cross_entropy", 1.0),
                                                                                      ("label_smoothing", 0.5)]
    capsys.readouterr()
    assert world.compare(objective="cross_entropy") == 0
    out, err = capsys.readouterr()
    assert len(world.records) == 1 and "seed" not in err and len(out.splitlines()) == 3
    assert CLOSE not in out.splitlines()[1], "the new runs are stored themselves"


# Verdicts

def test_equal_losses_are_no_difference(world: World, capsys: Any) -> None:
    """Without smoothing it is cross-entropy: the stored runs' ranks, a difference of exactly 0, p = 1."""
    assert world.compare("--set", "label_smoothing.epsilon=0.0") == 0
    row = world.rows()[CLOSE]
    assert [float(row[k]) for k in ("difference", "low", "high", "p_value", "p_holm")] == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert row["verdict"] == "no difference detected"
    (line,) = [s for s in world.report().splitlines() if s.startswith("- No diff") and f"and {CLOSE} (" in s]
    assert line.endswith("every user has the same value in both.")
    reference = RecordStore(world.reference)
    others = {r.seed: r for r in reference.read_all() if r.label == CLOSE}
    for record in world.records:
        assert RecordStore(world.results).ranks_bytes(record) == reference.ranks_bytes(others[record.seed])
        assert record.metrics == others[record.seed].metrics


def test_another_budget_gives_no_verdict(world: World, capsys: Any) -> None:
    """What was given more or fewer epochs than the stored baselines is described: differences without a test."""
    assert world.compare("--seeds", "0", "--set", "training.epochs=1") == 0
    assert "no verdict, unequal budget: epochs 1 instead of 2." in capsys.readouterr().out.splitlines()[0]
    assert {row["declared"] + row["verdict"] + row["p_value"] for row in world.rows().values()} == {"no"}


def test_only_rows_with_the_new_runs_settings_carry_verdicts(world: World, capsys: Any) -> None:
    """The stored cross-entropy has the width of the other tests, so it is no opponent of a wider network."""
    assert world.compare("--seeds", "0", "--set", "tiger.width=24") == 0
    assert {name: row["declared"] for name, row in world.rows().items()} == {
        "Popularity": "yes", "Item-kNN": "yes", CLOSE: "no"}
    assert f"{CLOSE} on toy" in world.report(), "the command that makes one"


def test_a_loss_on_wrong_tokens_is_worse(world: World, tmp_path: Path, capsys: Any) -> None:
    """It learns the target of another row: refused by its contract, and worse than item-kNN where it is trained."""
    mine = changed(tmp_path, "return -inputs.logits.log_softmax(-1).gather(2, inputs.targets.roll(1, 0)[:, :, None])"
                             ".sum((1, 2))")
    assert world.compare(objective=mine) == 1
    err = capsys.readouterr().err
    assert "FAILED" in err and not world.results.exists()
    assert world.compare("--no-check", objective=mine) == 0
    verdicts = {name: row["verdict"] for name, row in world.rows("my_loss").items()}
    assert verdicts["Item-kNN"] == "worse" and "better" not in verdicts.values()
    assert "worse than " in (told := capsys.readouterr().out.splitlines()[0]) and "Item-kNN" in told


def test_a_stored_run_is_taken_from_the_results_and_else_from_the_repository(
        world: World, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything in one folder the verdicts are the same; where neither folder has a run nothing is trained."""
    assert world.compare("--seeds", "0") == 0
    both = World(world.data, world.reference, shutil.copytree(world.reference, tmp_path / "both"))
    monkeypatch.setattr(folders, "REFERENCE", tmp_path / "nowhere")
    assert both.compare("--seeds", "0") == 0
    told = ("seeds", "mean", "mean_against", "difference", "p_holm", "verdict")
    apart, together = ({name: [row[k] for k in told] for name, row in w.rows().items()} for w in (world, both))
    assert apart == together and len(apart) == 3
    capsys.readouterr()
    assert World(world.data, world.reference, tmp_path / "none").compare() == 2
    told = f"no stored baselines in {tmp_path / 'none'} and {tmp_path / 'nowhere'}. Make them with `python benchmark.py"
    assert told in (err := capsys.readouterr().err) and f"--profile smoke --results {tmp_path / 'none'}`" in err
    assert not (tmp_path / "none").exists()


# Whatever may be wrong

MISTAKES = {
    "class": ((), "examples/label_smoothing.py:LabelSmoothng", ("'LabelSmoothng'", "'LabelSmoothing'")),
    "file": ((), "examples/label_smothing.py:LabelSmoothing", ("label_smothing.py", "examples/label_smoothing.py")),
    "module": ((), "examples/label_smoothing:LabelSmoothing", ("examples/label_smoothing", "label_smoothing.py?")),
    "folder": ((), "examples:LabelSmoothing", ("examples", "directory")),
    "objective": ((), "label_smothing", ("'label_smothing'", "--objective")),
    "backbone": (("--backbone", "tigr"), None, ("'tigr'", "'tiger'")),
    "profile": (("--profile", "smok"), None, ("'smok'", "'smoke'")),
    "dataset": (("--datasets", "ml-100"), None, ("'ml-100'", "'ml-100k'")),
    "data folder": (("--datasets", "./nothing/here"), None, ("nothing/here", "folder")),
    "setting": (("--set", "label_smoothing.epsilom=0.2"), None, ("'epsilom'", "'epsilon'")),
    "value": (("--set", "label_smoothing.epsilon=2"), None, ("label_smoothing", "at most 1")),
    "part": (("--set", "label_smothing.epsilon=0.2"), None, ("'label_smothing'", "'label_smoothing'")),
    "unused": (("--set", "llama.width=32"), None, ("llama", "no run")),
    "beside": (("--with", "cross_entrpy"), None, ("'cross_entrpy'", "'cross_entropy'")),
    "weight": (("--weight", "nan"), None, ("weight", "nan")),
    "seeds": (("--seeds", "x"), None, ("x", "0,1,2")),
    "jobs": (("--jobs", "0"), None, ("--jobs", "at least 1")),
    "option": (("--objectve", "x"), None, ("--objectve", "--objective")),
}


def refused(world: World, capsys: Any, expected: tuple[str, ...]) -> None:
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err, err
    assert all(text in err for text in expected), err
    assert not world.results.exists(), "something was written"


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case: str, world: World, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words, objective, expected = MISTAKES[case]
    assert world.compare(*words, objective=objective or "examples/label_smoothing.py:LabelSmoothing") == 2
    refused(world, capsys, expected)


@pytest.mark.parametrize(("text", "expected"), [
    ("\nvalue = 1 / 0\n", ("my_loss.py, line 2, raises ZeroDivisionError",)),
    ("import nothing_here\n", ("line 1, raises ModuleNotFoundError",)),
    ("from genrec_bench.objectives.base import Objective\n\nclass MyLoss(Objective):\n    pass\n",
     ("class MyLoss has no loss", "Define loss(self, inputs)")),
    ("from genrec_bench.objectives.base import Objective\n\nclass MyLoss(Objective):\n    def __init__(self):\n"
     "        raise ValueError('not\\nyet')\n    def loss(self, inputs):\n        pass\n",
     ("my_loss cannot be made with its settings: ValueError: not yet",)),
])
def test_files_that_cannot_be_used(text: str, expected: tuple[str, ...], world: World, tmp_path: Path,
                                   capsys: Any) -> None:
    (tmp_path / "my_loss.py").write_text(text)
    assert world.compare(objective=f"{tmp_path / 'my_loss.py'}:MyLoss") == 2
    refused(world, capsys, expected)


@pytest.mark.parametrize("needs", ["('trie',)", "None"])
def test_needs_that_are_no_set_are_one_line_without_checks_too(needs: str, world: World, tmp_path: Path,
                                                               capsys: Any) -> None:
    (tmp_path / "my_loss.py").write_text(
        "from genrec_bench.objectives.base import Objective\n\nclass MyLoss(Objective):\n"
        f"    needs = {needs}\n    def loss(self, inputs):\n        return -inputs.target_token_logps.sum(dim=1)\n")
    assert world.compare("--no-check", objective=f"{tmp_path / 'my_loss.py'}:MyLoss") == 2
    err = capsys.readouterr().err
    assert "error: objective my_loss: needs must be a set of names" in err and f"got {needs}." in err, err
    assert "Traceback" not in err and not world.results.exists()


@pytest.mark.parametrize(("text", "told"), [
    ("return -inputs.target_token_logps.mean()", "FAILED  gives a finite loss a row: expected a tensor of shape (6,)"),
    ("return torch.nan * inputs.target_token_logps.sum(dim=1)", "expected finite losses"),
    ("return inputs.no_such_thing", "(and 9 more checks): raised AttributeError"),
    ("return -inputs.logits.log_softmax(-1).max(-1).values.sum(1)", "FAILED"),
])
def test_a_broken_contract_trains_nothing(text: str, told: str, world: World, tmp_path: Path, capsys: Any) -> None:
    assert world.compare(objective=changed(tmp_path, text)) == 1
    out, err = capsys.readouterr()
    assert out == "" and told in err and "Traceback" not in err and len(err.splitlines()) <= MAX_ERROR_LINES
    assert "error: objective my_loss breaks its contract" in err.splitlines()[-1] and "--no-check" in err
    assert not world.results.exists()


def test_a_loss_that_becomes_nan_in_training(world: World, tmp_path: Path, capsys: Any) -> None:
    """Whoever trains it all the same is told which run failed and where its log is; exit code 1."""
    mine = changed(tmp_path, "return torch.nan * inputs.target_token_logps.sum(dim=1)")
    assert world.compare("--no-check", "--seeds", "0", objective=mine) == 1
    out, err = capsys.readouterr()
    assert out == "" and "the training loss of epoch 1 is nan (log: " in err and "Traceback" not in err
    assert not world.records and not (world.results / "reports").exists()


def test_ctrl_c_and_on(world: World) -> None:
    """SIGINT in the middle of training: exit 130 and how to go on; the same command then ends it."""
    words = world.words("--seeds", "0", "--set", "training.epochs=40", "--set", "training.patience=40")
    process = subprocess.Popen([sys.executable, "benchmark.py", *words], cwd=ROOT, env=environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not list(world.results.glob("work/*/state.safetensors")) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and out == "" and "Traceback" not in err, err
    assert "interrupted" in err and shlex.join(["benchmark.py", *words]) in err
    assert not world.records and list(world.results.glob("work/*/state.safetensors"))
    assert main(words) == 0 and len(world.records) == 1
