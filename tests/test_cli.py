"""The command line: mistakes are refused before anything is written, and a grid leaves what it should."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec_bench.cli import VERBS, main
from genrec_bench.results.records import RecordStore, read_record
from tests.small_jobs import write_toy

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

ROOT = Path(__file__).resolve().parents[1]
TINY = ("--set", "tiger.width=16", "--set", "tiger.head_width=8", "--set", "tiger.feed_forward_width=32")
MAX_ERROR_LINES = 15


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "GENREC_BENCH_DATA"}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """`python benchmark.py ...` as a user types it."""
    return subprocess.run([sys.executable, "benchmark.py", *map(str, words)], cwd=ROOT, capture_output=True, text=True,
                          env=environment(), check=False)


def call(*words: str | Path) -> int:
    """The same inside this process."""
    return main([str(w) for w in words])


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Everything below a folder: bytes and time of change."""
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
            for p in sorted(folder.rglob("*")) if p.is_file()}


def grid(folder: Path, results: Path, *more: str | Path) -> list[str | Path]:
    """Two baselines and a tiny TIGER on a folder of data."""
    return ["run", "--suite", "apao", "--profile", "smoke", "--datasets", folder, "--baselines", "popularity,item_knn",
            "--row", "TIGER + cross-entropy", *TINY, "--threads", "1", "--results", results, *more]


def records(results: Path) -> dict[str, dict[str, Any]]:
    """Records by run name, read as any other program would."""
    found = [json.loads(p.read_text()) for p in results.rglob("*.json") if (p.parent / f"{p.stem}.ranks.npz").exists()]
    return {record["run_id"]: record for record in found}


# Mistakes

RUN = ("--suite", "apao", "--profile", "smoke")
MISTAKES = {
    "suite": (("--suite", "apo"), "'apo'", "'apao'"),
    "profile": (("--suite", "apao", "--profile", "quik"), "'quik'", "'quick'"),
    "dataset": ((*RUN, "--datasets", "mk-100k"), "'mk-100k'", "'ml-100k'"),
    "second dataset": ((*RUN, "--datasets", "ml-100k,apao_ofice"), "'apao_ofice'", "'apao_office'"),
    "dataset folder": ((*RUN, "--datasets", "./nothing/here"), "nothing/here", "folder"),
    "setting": ((*RUN, "--set", "training.epohcs=3"), "'epohcs'", "'epochs'"),
    "section": ((*RUN, "--set", "trainng.epochs=3"), "'trainng'", "'training'"),
    "component": ((*RUN, "--set", "tigr.width=3"), "'tigr'", "'tiger'"),
    "type": ((*RUN, "--set", "training.epochs=abc"), "'abc'", "training.epochs must be of type int"),
    "fraction": ((*RUN, "--set", "training.epochs=1.5"), "1.5", "must be of type int"),
    "range": ((*RUN, "--set", "training.epochs=0"), "0", "training.epochs must be at least 1"),
    "choice": ((*RUN, "--set", "decoding.normaliser=tire"), "'tire'", "'trie'"),
    "not finite": ((*RUN, "--set", "training.learning_rate=nan"), "nan", "finite"),
    "no value": ((*RUN, "--set", "training.epochs"), "'training.epochs'", "PART.SETTING=VALUE"),
    "no part": ((*RUN, "--set", "epochs=3"), "'epochs=3'", "PART.SETTING=VALUE"),
    "beam": ((*RUN, "--set", "decoding.num_beams=5"), "5", "evaluation.max_k"),
    "short list": ((*RUN, "--set", "evaluation.max_k=5"), "evaluation.max_k", "at least 10"),
    "unused": ((*RUN, "--objectives", "cross_entropy", "--baselines", "none", "--set", "item_knn.decay=0.5"),
               "item_knn", "no run"),
    "unused tokenizer": ((*RUN, "--set", "given.codebook_size=4"), "given", "no run"),
    "seeds": ((*RUN, "--seeds", "x"), "x", "0,1,2"),
    "seed beyond 64 bits": ((*RUN, "--seeds", f"0,{2**63}"), "9223372036854775808", "to 9223372036854775807"),
    "seed of thousands of digits": ((*RUN, "--seeds", "9" * 5000), "9" * 40, "to 9223372036854775807"),
    "negative seed": ((*RUN, "--seeds=-1"), "-1", "0,1,2"),
    "empty seeds": ((*RUN, "--seeds", ","), "empty", "Leave the option out"),
    "empty datasets": ((*RUN, "--datasets", ","), "empty", "Leave the option out"),
    "objective": ((*RUN, "--objectives", "cross_entrpy"), "'cross_entrpy'", "'cross_entropy'"),
    "baseline": ((*RUN, "--baselines", "sasrek"), "'sasrek'", "'sasrec'"),
    "device": ((*RUN, "--device", "cuda:9"), "cuda:9", "CUDA devices"),
    "device name": ((*RUN, "--device", "gpu"), "'gpu'", "cpu, cuda or cuda:N"),
    "threads": ((*RUN, "--threads", "0"), "0", "at least 1"),
    "data folder": ((*RUN, "--data-dir", "no/such/folder"), "no/such/folder", "not a folder"),
    "verb": (("lst",), "'lst'", "'list'"),
    "kind": (("list", "datsets"), "'datsets'", "'datasets'"),
    "option": (("--sutie", "all"), "--sutie", "--suite"),
    "late option": ((*RUN, "--prfile", "x"), "--prfile", "--profile"),
    "abbreviation": (("--suit", "apao"), "--suit", "--suite"),
    "option of an action": (("data", "check", "--datsets", "ml-100k"), "--datsets", "--datasets"),
    "option of merge": (("merge", "--inot", "x"), "--inot", "--into"),
    "no suite": (("run",), "--suite", "required"),
    "plan": (("plan", "--suite", "apo"), "'apo'", "'apao'"),
    "report": (("report", "--suite", "apo"), "'apo'", "'apao'"),
}


@pytest.mark.parametrize("words", [m[0] for m in MISTAKES.values()], ids=MISTAKES)
def test_mistakes_are_named_with_the_nearest_match(words: tuple[str, ...], tmp_path: Path, capsys: Any,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENREC_BENCH_DATA", raising=False)
    wrong, right = next(m[1:] for m in MISTAKES.values() if m[0] == words)
    results = tmp_path / "results"
    assert call(*words, *(() if words == ("lst",) else ("--results", results))) == 2
    printed = capsys.readouterr()
    assert wrong in printed.err and right in printed.err, printed.err
    assert printed.err.startswith("error: ") and "Traceback" not in printed.err and printed.out == ""
    assert len(printed.err.splitlines()) <= MAX_ERROR_LINES
    assert not results.exists(), "something was written"


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = command("--suite", "apo", "--results", tmp_path / "results")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'apao'" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= MAX_ERROR_LINES and not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--results", "--reports"])
@pytest.mark.parametrize("below", ["", "deeper/still"])
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_file_in_place_of_a_folder(verb: str, option: str, below: str, toy_folder: Path, tmp_path: Path,
                                     capsys: Any) -> None:
    (tmp_path / "file").write_text("text")
    words = grid(toy_folder, tmp_path / "results")[1:]
    assert call(verb, *words, option, tmp_path / "file" / below) == 2
    message = capsys.readouterr().err
    assert option in message and str(tmp_path / "file") in message and "not a folder" in message
    assert not (tmp_path / "results").exists()


def test_bad_data_in_a_second_dataset_is_found_before_anything_is_written(toy_folder: Path, tmp_path: Path,
                                                                          capsys: Any) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "Bad.inter.json").write_text('{"0": [1, 2]}')
    assert call(*grid(f"{toy_folder},{bad}", tmp_path / "results")) == 2
    assert "Bad.inter.json" in capsys.readouterr().err and not (tmp_path / "results").exists()


# Verbs that only read

def test_the_overview_and_the_version(capsys: Any) -> None:
    assert call("--help") == 0
    printed = capsys.readouterr().out
    assert all(f"  {verb} " in printed for verb in VERBS)
    assert call("--version") == 0 and capsys.readouterr().out.startswith("genrec-bench ")
    assert main([]) == 2


@pytest.mark.parametrize("words", [*VERBS, "data list", "data check", "data fetch"])
def test_every_verb_has_help_and_takes_results(words: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(*words.split(), "--help")
    if words == "data":  # its actions take the options
        return
    assert stopped.value.code == 0 and "--results" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "names"), [
    ("datasets", ["apao_beauty", "apao_grocery", "apao_office", "apao_yelp", "ml-100k", "folder"]),
    ("tokenizers", ["given", "rq_kmeans"]), ("backbones", ["tiger"]), ("objectives", ["cross_entropy"]),
    ("metrics", ["hr", "mrr", "ndcg", "recall"]), ("suites", ["all", "apao"]),
    ("baselines", ["bert4rec", "content_knn", "item_knn", "popularity", "sasrec", "transition_graph"]),
    ("profiles", ["paper", "quick", "smoke"])])
def test_list(kind: str, names: list[str], capsys: Any) -> None:
    assert call("list", kind) == 0
    printed = capsys.readouterr().out
    listed = [line.split()[0] for line in printed.splitlines() if not line.startswith(" ")]
    assert set(names) <= set(listed)
    assert call("list") == 0 and f"{kind}:" in capsys.readouterr().out


def test_list_needs_no_torch() -> None:
    code = "import sys; from genrec_bench.cli import main; main(['list', 'suites']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True,
                          check=False).returncode == 0


def test_plan_shows_states_and_writes_nothing(toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    results = tmp_path / "results"
    words = grid(toy_folder, results)[1:]
    assert call("plan", *words) == 0
    printed = capsys.readouterr().out
    assert printed.count("missing") >= 3 and "done" not in printed.split("missing")[0]
    assert not results.exists()
    assert call("run", *words, "--objectives", "none_of_them") == 2
    assert call("run", *words, "--set", "evaluation.max_k=10", "--set", "decoding.num_beams=10") == 0
    before = files(results)
    capsys.readouterr()
    assert call("plan", *words, "--set", "evaluation.max_k=10", "--set", "decoding.num_beams=10") == 0
    printed = capsys.readouterr().out
    assert "3 done" in printed and files(results) == before
    assert call("plan", *words) == 0
    printed = capsys.readouterr().out
    assert "3 missing" in printed and "--probe measures them" in printed and files(results) == before


# A grid from end to end

@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, toy_interactions: Any) -> tuple[Path, Path]:
    """(data folder, results) of a grid that has run once."""
    folder = tmp_path_factory.mktemp("grid") / "toy"
    write_toy(folder, toy_interactions)
    results = folder.parent / "results"
    assert call(*grid(folder, results)) == 0
    return folder, results


def test_records_by_contract(finished: tuple[Path, Path]) -> None:
    found = records(finished[1])
    assert len(found) == 3
    methods = set()
    for path in sorted(finished[1].rglob("*.ranks.npz")):
        record = json.loads(path.with_name(path.name.replace(".ranks.npz", ".json")).read_text())
        assert path.name == f"{record['run_id']}.ranks.npz" and record["schema"] == 3
        metrics = record["metrics"]
        assert "ndcg@10" in metrics and all(isinstance(v, (int, float)) and np.isfinite(v) for v in metrics.values())
        with np.load(path) as ranks:
            assert {"ranks", "ties", "id_ranks"} <= set(ranks) and all(len(ranks[k]) == 50 for k in ranks)
            assert ranks["ranks"].max() <= 20 and ranks["ranks"].min() >= 0
        config = record["config"]
        methods.add(config["baseline"]["name"] if "baseline" in config
                    else f"{config['backbone']['name']}+{config['objectives'][0]['name']}")
        assert record["data"]["users"] == 50 and record["data"]["test"] == 50
        assert record["timings"]["total_seconds"] > 0 and record["provenance"]["threads"] == 1
    assert methods == {"popularity", "item_knn", "tiger+cross_entropy"}


def test_a_finished_grid_leaves_a_report_and_the_weights(finished: tuple[Path, Path]) -> None:
    reports = sorted((finished[1] / "reports").rglob("*.md"))
    assert reports and any("| " in p.read_text() for p in reports)
    work = [p for p in (finished[1] / "work").rglob("*") if p.is_file()]
    assert {p.name for p in work} <= {"best.safetensors", "run.log"}
    assert sum(p.name == "best.safetensors" for p in work) == 1


def test_a_second_call_repeats_nothing(finished: tuple[Path, Path], capsys: Any) -> None:
    """Records, ranks and weights keep bytes and time; a report that is written again has the same bytes."""
    folder, results = finished
    before = files(results)
    assert call(*grid(folder, results)) == 0
    assert "3 of 3 runs are done already" in capsys.readouterr().err
    after = files(results)
    assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}
    kept = {k for k in before if not k.startswith("reports")}
    assert {k: after[k] for k in kept} == {k: before[k] for k in kept}


# Merging

def copy_of(results: Path, target: Path) -> Path:
    for path in results.glob("toy/*"):
        (target / "toy").mkdir(parents=True, exist_ok=True)
        (target / "toy" / path.name).write_bytes(path.read_bytes())
    return target


def test_merge_moves_and_is_content_with_equal_records(finished: tuple[Path, Path], tmp_path: Path,
                                                       capsys: Any) -> None:
    local, reference = copy_of(finished[1], tmp_path / "local"), tmp_path / "reference"
    before = {k: v[0] for k, v in files(local).items()}
    assert call("merge", "--results", local, "--into", reference) == 0
    assert "3 records moved" in capsys.readouterr().out
    moved = {k: v[0] for k, v in files(reference).items() if k != "index.csv"}
    assert moved == before and not files(local) and (reference / "index.csv").is_file()
    kept = files(reference)
    copy_of(finished[1], local)
    assert call("merge", "--results", local, "--into", reference) == 0
    assert "0 records moved" in capsys.readouterr().out and files(reference) == kept and not files(local)


@pytest.mark.parametrize("what", ["metrics", "ranks"])
def test_merge_refuses_an_equal_name_with_other_numbers(finished: tuple[Path, Path], tmp_path: Path, capsys: Any,
                                                        what: str) -> None:
    local, reference = copy_of(finished[1], tmp_path / "local"), copy_of(finished[1], tmp_path / "reference")
    path = sorted((local / "toy").glob("*.json"))[1]
    if what == "metrics":
        data = json.loads(path.read_text())
        data["metrics"]["ndcg@10"] += 1e-9
        path.write_text(json.dumps(data))
    else:
        ranks = path.with_name(f"{path.stem}.ranks.npz")
        with np.load(ranks) as arrays:
            changed = {k: arrays[k] for k in arrays}
        changed["ranks"] = changed["ranks"].copy()
        changed["ranks"][0] += 1
        np.savez_compressed(ranks, **changed)
    # a record that is new and would move, had the other one not been wrong
    for missing in (reference / "toy").glob(f"{sorted((local / 'toy').glob('*.json'))[2].stem}*"):
        missing.unlink()
    before = files(local), files(reference)
    assert call("merge", "--results", local, "--into", reference) == 2
    message = capsys.readouterr().err
    assert path.stem in message and ("ndcg@10" in message if what == "metrics" else "other ranks" in message)
    assert (files(local), files(reference)) == before


def test_merge_of_nothing_and_into_itself(tmp_path: Path, capsys: Any) -> None:
    assert call("merge", "--results", tmp_path / "none", "--into", tmp_path / "x") == 2
    assert "no folder of records at" in capsys.readouterr().err
    assert call("merge", "--results", tmp_path, "--into", tmp_path) == 2
    assert "same folder" in capsys.readouterr().err


def test_a_damaged_record_is_named(finished: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    local = copy_of(finished[1], tmp_path / "local")
    path = sorted((local / "toy").glob("*.json"))[0]
    path.write_text(path.read_text()[:-40])
    assert call("merge", "--results", local, "--into", tmp_path / "reference") == 2
    assert str(path) in capsys.readouterr().err and not (tmp_path / "reference").exists()


# Ctrl-C

def test_ctrl_c_loses_nothing(toy_folder: Path, tmp_path: Path) -> None:
    """SIGINT in the middle of training: exit 130, how to go on, no record; the second run ends as if never stopped."""
    results = tmp_path / "results"
    words = [str(w) for w in grid(toy_folder, results, "--set", "training.epochs=30", "--set", "training.patience=30")]
    words[words.index("popularity,item_knn")] = "none"
    process = subprocess.Popen([sys.executable, "benchmark.py", *words], cwd=ROOT, env=environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not list(results.glob("work/*/state.safetensors")) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, printed
    assert "interrupted" in printed and "benchmark.py" in printed and "Traceback" not in printed
    assert len(printed.splitlines()) <= MAX_ERROR_LINES
    assert not records(results) and list(results.glob("work/*/state.safetensors"))
    assert not list(results.rglob("*.tmp")) and not list(results.rglob("failure.txt"))
    assert call(*words) == 0
    words[words.index(str(results))] = str(tmp_path / "whole")
    assert call(*words) == 0
    (resumed,), (whole,) = records(results).values(), records(tmp_path / "whole").values()
    assert resumed["metrics"] == whole["metrics"] and resumed["training"] == whole["training"]
    ranks = [next(r.rglob("*.ranks.npz")).read_bytes() for r in (results, tmp_path / "whole")]
    assert ranks[0] == ranks[1]


def test_a_run_whose_files_were_cut_short_is_not_done(finished: tuple[Path, Path], tmp_path: Path,
                                                      capsys: Any) -> None:
    """`plan` says damaged, reports and exports leave it out and name the file, `run` makes it again."""
    folder, results = finished[0], copy_of(finished[1], tmp_path / "results")
    path = next(p for p in results.rglob("*.json") if "item_knn" in p.read_text()).with_suffix(".ranks.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    words = grid(folder, results)
    assert call("plan", *words[1:]) == 0
    told = capsys.readouterr()
    assert "2 done, 1 damaged, 0 failed" in told.out and f"left out: {path}" in told.err
    for verb in (("report", "--suite", "apao", "--ledger"), ("export", "--to", tmp_path / "runs.csv")):
        assert call(*verb, "--results", results) == 0
        told = capsys.readouterr()
        assert f"left out: {path} is not a file of ranks" in told.err and "Traceback" not in told.err
    assert "of 2 runs" in told.out
    assert call(*words) == 0
    assert f"{path} is not a file of ranks" in capsys.readouterr().err and path.read_bytes() == whole
    assert len(RecordStore(results).read_all()) == 3 and "left out" not in capsys.readouterr().err


def test_stores_read_what_the_command_wrote(finished: tuple[Path, Path]) -> None:
    store = RecordStore(finished[1])
    found = store.read_all()
    assert [r.run_id for r in found] == sorted(records(finished[1]))
    for record in found:
        assert read_record(store.path(record)) == record and store.read(record.run_id) == record
        assert len(store.read_ranks(record).ranks) == 50
