"""`--plugin FILE.py` from end to end: the examples of every kind, what a file registers, and whatever may be wrong."""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from genrec_bench.cli import VERBS, main
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.suite_files import load_suite
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.running import folders, plugin_sources
from genrec_bench.running.plugin_file import load_one, load_plugin, load_plugins
from tests.test_cli import ROOT

torch.set_num_threads(1)

EXAMPLES = ROOT / "examples"
FILES = {"dataset": "clicks", "split": "new_users", "tokenizer": "digits", "backbone": "gru",
         "label_smoothing": "label_smoothing", "metric": "rbp", "baseline": "follows"}
PLUGINS = [word for name in FILES for word in ("--plugin", str(EXAMPLES / f"{name}.py"))]


@contextmanager
def forgotten() -> Iterator[None]:
    """What is registered, imported and served inside is gone afterwards."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("GENREC_BENCH_DATA", raising=False)
        for kind in registry.KINDS:
            monkeypatch.setattr(kind, "_classes", kind.classes())
        monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
        monkeypatch.setattr(plugin_sources._SERVED, "modules", {})
        before = set(sys.modules)
        yield
        for name in [n for n in set(sys.modules) - before if "genrec_bench_plugin_" in n or n == "helper"]:
            del sys.modules[name]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    with forgotten():
        yield


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with clicks.csv: 60 users who mostly go on to the next of 40 items."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    with open(folder / "clicks.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "time", "title"])
        for user in range(60):
            item = draw.randrange(40)
            for time in range(8):
                writer.writerow([f"u{user}", f"i{item:02d}", time, f"thing {item} group {item % 5}"])
                item = (item + (1 if draw.random() < 0.8 else draw.randrange(2, 40))) % 40
    return folder


@pytest.fixture(scope="module")
def results(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's suite run by two walkers, which are processes of their own."""
    folder = tmp_path_factory.mktemp("results")
    with forgotten():
        assert run(*PLUGINS, "--suite", EXAMPLES / "mine.toml", *words(clicks, folder), "--jobs", "2") == 0
    return folder


def words(clicks: Path, results: Path) -> list[str]:
    return ["--profile", "smoke", "--datasets", "clicks", "--data-dir", str(clicks), "--results", str(results)]


def records(results: Path) -> dict[str, RunRecord]:
    return {record.label: record for record in RecordStore(results).read_all()}


def run(*given: str | Path) -> int:
    return main([str(word) for word in given])


# The examples

@pytest.mark.parametrize("name", FILES)
def test_an_example_is_short_and_keeps_its_contract(name: str, clicks: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    assert run("check", path, "--data-dir", clicks) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{FILES[name]}: ")
    assert run("check", FILES[name], "--plugin", path, "--data-dir", clicks) == 0


def test_a_suite_of_plugins(results: Path) -> None:
    """Every kind took part, and each of their sources is in the names of the runs, but that of the metric."""
    found = records(results)
    assert set(found) == {"Item-kNN", "Follows", "GRU + label smoothing"}
    assert all(0 < record.metrics["rbp@10"] < record.metrics["recall@10"] for record in found.values())
    mine = found["GRU + label smoothing"]
    assert mine.tokenizer["levels"] == 2 and mine.dataset == "clicks"
    parts = [mine.identity["dataset"], mine.identity["tokenizer"], mine.identity["backbone"],
             *mine.identity["objectives"], found["Follows"].identity["baseline"]]
    assert [part["name"] for part in parts] == ["clicks", "digits", "gru", "label_smoothing", "follows"]
    assert len({part["source"] for part in parts}) == 5 and "source" not in found["Item-kNN"].identity["baseline"]
    report = (results / "reports/mine/report.md").read_text(encoding="utf-8")
    assert "# A GRU on digits beside its baselines" in report and "## Other runs" not in report


def test_a_split_of_ones_own(clicks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Chosen by its name, it is in the names of the runs and in the report; so are its settings, and no other's."""
    given = [*PLUGINS, "--suite", EXAMPLES / "mine.toml", *words(clicks, tmp_path), "--baselines", "follows", "--set",
             "split.name=new_users"]
    assert run(*given, "--set", "split.every=2", "--jobs", "2") == 0
    (record,) = records(tmp_path).values()
    assert record.identity["split"]["name"] == "new_users" and "source" in record.identity["split"]
    assert record.data["test"] == record.data["valid"] == 30 and record.config["split"]["every"] == 2
    report = (tmp_path / "reports/mine/appendix.md").read_text(encoding="utf-8")
    assert "Users who were never trained on: one of 2 is tested; at most" in report
    assert run(*given, "--set", "split.evry=2") == 2 and "Did you mean 'every'?" in capsys.readouterr().err
    assert run(*given[:-1], "split.every=2") == 2 and "unknown setting 'every'" in capsys.readouterr().err


def test_a_baseline_that_no_suite_names_is_a_row_of_its_own(clicks: Path, results: Path, tmp_path: Path) -> None:
    """Also in the report, but in no comparison; without its file the record is told of."""
    assert run("run", *PLUGINS, "--suite", "apao", "--baselines", "follows,popularity", *words(clicks, results),
               "--reports", tmp_path) == 0
    page, rest = ((tmp_path / "apao" / name).read_text(encoding="utf-8") for name in ("report.md", "appendix.md"))
    assert "Follows" in page and "Popularity" in page and "GRU" in rest.partition("## Other runs")[2]
    del registry.baselines._classes["follows"]
    assert run("report", "--suite", "apao", *PLUGINS[:2], "--results", results, "--reports", tmp_path) == 0
    table, _, others = (tmp_path / "apao/appendix.md").read_text(encoding="utf-8").partition("## Other runs")
    assert "Follows" not in table and "baseline follows: not registered; --plugin FILE.py loads it" in others


def test_a_report_needs_the_file_of_its_dataset(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "--suite", "apao", "--results", results) == 2
    assert "dataset clicks" in (err := capsys.readouterr().err) and "--plugin FILE.py" in err


def test_other_verbs_with_plugins(clicks: Path, results: Path, tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--suite", EXAMPLES / "mine.toml", *PLUGINS, *words(clicks, results)) == 0
    assert "3 done" in capsys.readouterr().out
    assert run("export", *PLUGINS, "--suite", EXAMPLES / "mine.toml", "--to", tmp_path / "x.csv", "--results",
               results) == 0
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        assert {"rbp"} < {line["metric"] for line in csv.DictReader(file)}
    assert run("list", "tokenizers", *PLUGINS) == 0 and "digits" in capsys.readouterr().out
    assert run("data", "check", *PLUGINS, "--datasets", "clicks", "--data-dir", clicks, "--json") == 0
    assert json.loads(capsys.readouterr().out)["clicks"]["users"] == 60


def test_compare_with_rows_of_a_file(clicks: Path, results: Path, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's suite says who carries verdicts."""
    monkeypatch.setattr(folders, "REFERENCE", results)
    assert run("compare", "--objective", "cross_entropy", "--backbone", "gru", *PLUGINS, "--suite",
               EXAMPLES / "mine.toml", *words(clicks, tmp_path / "mine"), "--jobs", "1") == 0
    with open(tmp_path / "mine/reports/compare/cross_entropy/comparison.csv", newline="", encoding="utf-8") as file:
        declared = {line["against"]: line["declared"] for line in csv.DictReader(file)}
    assert {"Item-kNN": "yes", "Follows": "yes", "GRU + label smoothing": "yes"}.items() <= declared.items()


# What a file registers

KINDS = '''
from dataclasses import dataclass
from genrec_bench.core.registry import metrics, tokenizers
from genrec_bench.metrics.base import Metric
from genrec_bench.objectives.base import Objective
from genrec_bench.tokenizers.base import Tokenizer
{more}

@metrics.register("my_metric")
@dataclass(frozen=True)
class Mine(Metric):
    """One."""
    def gain(self, ranks):
        return 1.0 / ranks

@tokenizers.register("my-ids")
@dataclass(frozen=True)
class Ids(Tokenizer):
    """Two."""

class Loss(Objective):
    """Not registered."""
    def loss(self, inputs):
        return -inputs.target_token_logps.sum(dim=1)
'''


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_everything_that_a_file_registers_is_named_by_its_source(tmp_path: Path) -> None:
    path = written(tmp_path, KINDS.format(more=""))
    digest = load_plugin(str(path)).sources.digest
    assert registry.metrics.get("my_metric").source_digest == registry.tokenizers.get("my-ids").source_digest == digest
    assert "loss" not in registry.objectives.names()
    written(tmp_path, KINDS.format(more="X = 1"))
    load_plugin(str(path))
    edited = registry.identity(registry.tokenizers.build({"name": "my-ids"}))
    assert edited == {"name": "my-ids", "version": 1, "source": registry.metrics.get("my_metric").source_digest}
    assert edited["source"] != digest
    for name in registry.KINDS:
        assert not any(hasattr(c, "source_digest") for n, c in name.classes().items() if not n.startswith("my"))


def test_one_of_a_file_is_picked_by_class_or_name(tmp_path: Path) -> None:
    path = written(tmp_path, KINDS.format(more=""))
    found = [load_one(f"{path}:{name}") for name in ("Mine", "my_metric", "Ids", "my-ids", "Loss")]
    assert found == ["my_metric", "my_metric", "my-ids", "my-ids", "loss"]
    assert load_one(str(path), registry.metrics) == "my_metric" and load_one(str(path), registry.objectives) == "loss"
    with pytest.raises(UserError, match=r"has 3 plug-ins: say which, \S+:Ids or \S+:Loss or \S+:Mine\."):
        load_one(str(path))


def test_what_a_module_registers_counts_too(tmp_path: Path) -> None:
    path = written(tmp_path, "import helper\n")
    written(tmp_path, KINDS.format(more=""), "helper.py")
    digest = load_plugin(str(path)).sources.digest
    assert load_one(f"{path}:my_metric") == "my_metric"
    assert registry.metrics.get("my_metric").source_digest == digest
    written(tmp_path, KINDS.format(more="X = 1"), "helper.py")
    assert load_plugin(str(path)).sources.digest != digest


def test_files_that_import_when_they_run_keep_their_modules(tmp_path: Path) -> None:
    """Two files with a module beside each; of one name only where it is the same."""
    lazy = KINDS.replace("return 1.0 / ranks", "import helper\n        return helper.X / ranks")
    for folder, name in (("a", "my"), ("b", "your")):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder, lazy.format(more="").replace("my_", f"{name}_").replace("my-", f"{name}-"))
    one, other = str(tmp_path / "a/mine.py"), str(tmp_path / "b/mine.py")
    written(tmp_path / "a", "X = 2.0\n", "helper.py")
    load_plugins([one, other])
    assert registry.metrics.get("my_metric")().gain(2.0) == 1.0
    written(tmp_path / "b", "X = 3.0\n", "helper.py")
    with pytest.raises(UserError, match=r"a/mine.py and \S+b/mine.py import different modules of the name helper"):
        load_plugins([one, other])


# Mistakes

MISTAKES = {
    "nothing": ("x = 1\n", "mine.py registers nothing. Put a decorator such as"),
    "error": ("\n1 / 0\n", "mine.py, line 2, raises ZeroDivisionError"),
    "syntax": ("def f(:\n", "mine.py, line 1, raises SyntaxError"),
    "taken": (KINDS.format(more="").replace("my_metric", "recall"), "metric 'recall' is registered twice"),
    "other kind": (KINDS.format(more="").replace("my-ids", "tiger"), "tokenizer 'tiger' has the name of a backbone"),
    "section": (KINDS.format(more="").replace("my-ids", "training"), "has the name of a section of settings"),
    "no name": (KINDS.format(more="").replace("my-ids", "My Ids"), "line 16: tokenizer 'My Ids': a name has lower"),
    "no dataclass": (KINDS.format(more="").replace("@dataclass(frozen=True)\nclass Ids(Tokenizer)", "class Ids"),
                     "must be a dataclass"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_wrong_file_is_one_clear_message(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, MISTAKES[case][0])
    assert run("--suite", "apao", "--plugin", path, "--results", tmp_path / "results") == 2
    told = capsys.readouterr()
    assert MISTAKES[case][1] in told.err and told.err.count("\n") == 1 and told.out == ""
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("given", "message"), [
    (("--suite", "apao", "--plugin", "mina.py"), "cannot read the plug-in file mina.py: No such file or directory. Did "
                                                 "you mean mine.py?"),
    (("--suite", "apao", "--plugin", "mine"), "cannot read the plug-in file mine: No such file or directory. Did you "
                                              "mean mine.py?"),
    (("--suite", "apao", "--plugin", "mine.toml"), "a plug-in is a Python file, FILE.py or FILE.py:NAME, and not"),
    (("--suite", "apao", "--plugin"), "argument --plugin: expected one argument"),
    (("--suite", "apao", "--plugn", "mine.py"), "'--plugn'. Did you mean --plugin?"),
    (("data", "list", "--plugn", "mine.py"), "'--plugn'. Did you mean --plugin?"),
    (("check", "mine.py:Mien"), "unknown class 'Mien' in mine.py. Did you mean 'Mine'?"),
    (("check", "my_metrik", "--plugin", "mine.py"), "unknown plug-in 'my_metrik'. Did you mean 'my_metric'?"),
    (("--suite", "apao", "--plugin", "mine.py", "--baselines", "folows"), "unknown baseline 'folows' in --baselines"),
    (("--suite", "min.toml"), "there is no suite file min.toml. Did you mean mine.toml?"),
    (("compare", "--objective", "dpo", "--suite", "min.toml"), "there is no suite file min.toml."),
    (("--suite", "apao.toml"), "apao.toml: a suite of the name 'apao' is there already. Give the file another name"),
    (("--suite", "mine.toml"), "unknown baseline 'foll'"),
])
def test_a_typo_is_one_clear_message(given: tuple[str, ...], message: str, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, KINDS.format(more=""))
    for name in ("mine", "apao"):
        written(tmp_path, f'[suite]\nname = "{name}"\ntitle = "x"\n[[row]]\nbaseline = "foll"\n', f"{name}.toml")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run(*given[:1], *given[1:], *(() if given[-1] == "--plugin" else ("--results", "results"))) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_it(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(verb, "--help")
    assert "--plugin FILE.py" in capsys.readouterr().out


def test_an_edited_suite_file_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path, '[suite]\nname = "x"\ntitle = "one"\n[[row]]\nbaseline = "popularity"\n', "x.toml")
    assert load_suite(str(path))["suite"]["title"] == "one"
    path.write_text(path.read_text().replace("one", "two"))
    assert load_suite(str(path))["suite"]["title"] == "two"
