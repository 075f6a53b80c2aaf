"""`diagnose`: what it makes of finished runs, what it leaves out, and what it refuses before it starts."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from genrec_bench import api
from genrec_bench.cli import main
from genrec_bench.core import walk
from genrec_bench.reporting import markdown
from genrec_bench.results import diagnoses
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.results.records import RecordStore
from genrec_bench.running import diagnosis
from genrec_bench.search import diagnose as search
from genrec_bench.training import checkpoints
from tests.small_jobs import write_toy
from tests.test_cli import TINY, files

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

ROW = "TIGER + cross-entropy"


def selection(data: Path, results: Path) -> list[str]:
    return ["--suite", "apao", "--profile", "smoke", "--datasets", str(data), "--row", ROW, *TINY, "--set",
            "training.epochs=1", "--results", str(results)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, toy_interactions: Any) -> tuple[Path, Path]:
    """(data folder, results) of a tiny TIGER at seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("diagnosed") / "toy"
    write_toy(folder, toy_interactions)
    results = folder.parent / "results"
    words = selection(folder, results)
    assert main(["run", *words, "--baselines", "none", "--seeds", "0,1", "--jobs", "1"]) == 0
    return folder, results


class World:
    """A copy of the finished runs, and the verb on them."""

    def __init__(self, data: Path, results: Path) -> None:
        self.data, self.results, self.store = data, results, RecordStore(results)

    def call(self, *more: str, seeds: str = "0,1") -> int:
        return main(["diagnose", *selection(self.data, self.results), "--seeds", seeds, "--jobs", "1", *more])

    def found(self) -> list[Diagnosis | None]:
        """The diagnoses, in order of seeds."""
        return [diagnoses.find(self.store, r) for r in sorted(self.store.read_all(), key=lambda r: r.seed)]

    def best(self, seed: int) -> Path:
        """The weights of a seed's run."""
        run_id = next(r.run_id for r in self.store.read_all() if r.seed == seed)
        return self.results / "work" / run_id / "best.safetensors"


@pytest.fixture()
def whole(finished: tuple[Path, Path], tmp_path: Path) -> World:
    """With reports, which take longer than all else here."""
    shutil.copytree(finished[1], tmp_path / "results")
    return World(finished[0], tmp_path / "results")


@pytest.fixture()
def world(whole: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Without reports."""
    monkeypatch.setattr(markdown, "render_suite", lambda suite, records, reports, **more: reports / suite)
    return whole


def test_a_diagnosis_stands_beside_every_record(whole: World, capsys: Any) -> None:
    world = whole
    assert world.call("--beams", "20,3,50") == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("apao/report.md\n") and printed.err.count("targets that full sorting ranks") == 2
    assert (world.results / "reports" / "apao" / "report.md").is_file()
    for record, found in zip(sorted(world.store.read_all(), key=lambda r: r.seed), world.found(), strict=True):
        about = found.about
        assert (about["run_id"], about["beams"], about["levels"]) == (record.run_id, [3, 20, 50], 3)
        assert about["sample"]["users"] == about["sample"]["of"] == record.data["test"]
        # 30 items, of which two and three share an ID: 4 codes, then 4, then 2 below each but where fewer items are
        assert about["catalogue"]["items"] == 30 and about["catalogue"]["ids"] == 27
        assert about["catalogue"]["nodes"] == 1 + sum(about["catalogue"]["prefixes"][:2])
        assert about["decoding"] == {"normaliser": "flat", "num_beams": 20, "temperature": 1.0, "eos": False}
        # a beam wider than the catalogue loses nothing, and the run's own beam ranks as the record says
        assert np.array_equal(found.of("flat", "beam_rank")[:, 2], found.of("flat", "rank"))
        stored = world.store.read_ranks(record).id_ranks
        assert np.array_equal(found.of("flat", "beam_rank")[:, 1], stored)
        assert found.of("flat", "beam_rank")[:, 1].max() > 0


def test_a_second_call_finds_nothing_to_do(world: World, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.call("--beams", "5,20") == 0
    assert all(d.beams == (5, 20) for d in world.found())
    before = files(world.results / "toy")
    monkeypatch.setattr(diagnosis, "diagnose_run", None)
    capsys.readouterr()
    assert world.call("--beams", "20") == 0
    assert "2 of 2 runs are diagnosed already" in capsys.readouterr().err and files(world.results / "toy") == before
    report = api.diagnose("apao", profile="smoke", datasets=[world.data], rows=[ROW], seeds=[0, 1], beams=[20],
                          results=world.results, training={"epochs": 1},
                          tiger={"width": 16, "head_width": 8, "feed_forward_width": 32})
    assert report == world.results / "reports" / "apao"
    assert "2 of 2 runs are diagnosed already" in capsys.readouterr().err and files(world.results / "toy") == before


def test_equal_runs_give_equal_bytes_at_any_number_of_jobs(world: World) -> None:
    assert world.call("--beams", "5,20") == 0
    paths = sorted((world.results / "toy").glob("*.diagnosis.npz"))
    before = [p.read_bytes() for p in paths]
    for path in paths:
        path.unlink()
    assert world.call("--beams", "5,20", "--jobs", "2") == 0
    assert [p.read_bytes() for p in paths] == before and len(before) == 2


def test_other_beams_take_the_place_of_a_diagnosis_of_as_many_users(world: World) -> None:
    assert world.call("--beams", "20", seeds="0") == 0
    assert world.call("--beams", "10,20", seeds="0") == 0
    assert world.found()[0].beams == (10, 20) and world.found()[1] is None


def test_fewer_users_never_take_the_place_of_more(world: World) -> None:
    assert world.call("--beams", "20", "--users", "5", seeds="0") == 0
    quick = world.found()[0]
    assert quick.about["sample"]["rule"] == "drawn" and quick.num_users == 5
    assert world.call("--beams", "20", seeds="0") == 0
    whole = world.found()[0]
    assert whole.about["sample"]["rule"] == "all" and whole.num_users > 5
    assert whole.about["sample"]["sha256"] != quick.about["sample"]["sha256"]
    for name in ("flat/rank", "flat/beam_rank", "trie/needed"):
        assert np.array_equal(whole.arrays[name][quick.arrays["rows"]], quick.arrays[name])
    assert world.call("--beams", "5", "--users", "5", seeds="0") == 0
    assert world.found()[0].about == whole.about


def test_what_is_missing_is_listed_with_its_command(world: World, capsys: Any) -> None:
    world.best(0).unlink()
    assert world.call("--beams", "20", seeds="0,1,2") == 0
    first, second = world.found()
    assert first is None and second is not None
    printed = capsys.readouterr().err
    assert f"left out: {ROW}, toy, seed 2: not finished" in printed
    assert f"left out: {ROW}, toy, seed 0: finished, but its weights are not here" in printed
    commands = [line.split() for line in printed.splitlines() if line.startswith("  python benchmark.py run ")]
    assert len(commands) == 2 and commands[0][-1] == str(world.results) and commands[1][-1].endswith("results/local")
    assert f"--row '{ROW}'" in printed and "--seeds 0,1,2" in printed and "--set tiger.width=16" in printed


def test_a_run_whose_diagnosis_is_there_needs_no_weights(world: World, capsys: Any) -> None:
    assert world.call("--beams", "20") == 0
    world.best(0).unlink()
    world.best(1).unlink()
    capsys.readouterr()
    assert world.call("--beams", "20") == 0 and "left out" not in capsys.readouterr().err


def test_where_nothing_can_be_diagnosed_nothing_is_written(world: World, capsys: Any) -> None:
    before = files(world.results)
    assert world.call(seeds="7") == 2
    printed = capsys.readouterr().err
    assert "error: nothing to diagnose" in printed and "seed 7: not finished" in printed
    assert files(world.results) == before
    for seed in (0, 1):
        world.best(seed).unlink()
    before = files(world.results)
    assert world.call() == 2 and "error: nothing to diagnose" in capsys.readouterr().err
    assert files(world.results) == before


def stir(path: Path) -> None:
    """Other weights under the same state."""
    tensors, state = checkpoints.read(path)
    random = torch.Generator().manual_seed(0)
    checkpoints.write(path, {k: torch.randn(v.shape, generator=random) if v.is_floating_point() else v
                             for k, v in tensors.items()}, state)


@pytest.mark.parametrize("beams", ["5,20", "5"])  # the run's own beam is 20
def test_weights_that_are_not_the_records_are_refused(world: World, capsys: Any, beams: str) -> None:
    stir(world.best(0))
    assert world.call("--beams", beams) == 1
    printed = capsys.readouterr()
    assert "are not those of record" in printed.err and "targets have another rank" in printed.err
    assert "report:" in printed.out and [f is not None for f in world.found()] == [False, True]
    assert world.call("--beams", beams, seeds="0") == 2
    assert "are not those of record" in capsys.readouterr().err


def test_other_semantic_ids_are_refused(world: World, capsys: Any) -> None:
    tensors, state = checkpoints.read(world.best(0))
    tensors["semantic_ids"] = tensors["semantic_ids"].flip(0)
    checkpoints.write(world.best(0), tensors, state)
    assert world.call("--beams", "5", seeds="0") == 2
    assert "trained on other semantic IDs" in capsys.readouterr().err and world.found()[0] is None


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(world: World, capsys: Any,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    done, real = [], diagnosis.diagnose_run

    def interrupted(item: Any, *more: Any) -> Diagnosis:
        if done:
            raise KeyboardInterrupt
        done.append(item.run_id)
        return real(item, *more)

    monkeypatch.setattr(diagnosis, "diagnose_run", interrupted)
    with pytest.raises(SystemExit) as caught:
        world.call("--beams", "20")
    assert caught.value.code == 130 and "1 of 2 runs are diagnosed" in capsys.readouterr().err
    assert [f is not None for f in world.found()] == [True, False]
    assert not list(world.results.rglob("*.tmp")) and not list(world.results.rglob(".*.npz"))
    monkeypatch.setattr(diagnosis, "diagnose_run", real)
    assert world.call("--beams", "20") == 0
    assert "1 of 2 runs are diagnosed already" in capsys.readouterr().err and None not in world.found()


def test_the_limit_of_time_stops_a_diagnosis(world: World, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user a batch, of a minute each."""
    late, real = [0.0], search.diagnose_users

    def slow(*given: Any, **asked: Any) -> search.Facts:
        late[0] += 60.0
        return real(*given, **asked)

    monkeypatch.setattr(walk, "time", SimpleNamespace(time=lambda: time.time() + late[0], sleep=time.sleep))
    monkeypatch.setattr(search, "users_at_once", lambda *_: 1)
    monkeypatch.setattr(search, "diagnose_users", slow)
    assert world.call("--beams", "20", "--minutes", "5.5", seeds="0") == 0 and late[0] == 300.0
    assert "time is up: 0 of 1 runs are diagnosed, 1 stopped" in capsys.readouterr().err
    assert world.call("--beams", "20", "--minutes", "5.5", seeds="0") == 0 and late[0] == 300.0  # not begun in vain
    assert world.found() == [None, None] and world.call("--beams", "20", seeds="0") == 0 and world.found()[0]


def test_a_run_that_fails_does_not_stop_the_others(world: World, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = diagnosis.diagnose_run

    def failing(item: Any, *more: Any) -> Diagnosis:
        if item.config.seed == 0:
            raise ValueError("the logits of user row 3 are NaN or +inf\nmore")
        return real(item, *more)

    monkeypatch.setattr(diagnosis, "diagnose_run", failing)
    assert world.call("--beams", "20") == 1
    assert f"FAILED  {ROW}, toy, seed 0: the logits of user row 3 are NaN or +inf\n" in capsys.readouterr().err
    assert [f is not None for f in world.found()] == [False, True]


@pytest.mark.parametrize(("words", "message"), [
    (("--beams", "5,x"), "got 'x'"), (("--beams", "0,5"), "got '0'"), (("--beams", "1001"), "got '1001'"),
    (("--beams", "-5"), "got '-5'"), (("--beams", "5,,10"), "got ''"), (("--beams", ""), "got ''"),
    (("--beams", "2.5"), "got '2.5'"), (("--beams", "5,20,5"), "--beams names 5 twice"),
    (("--beams", "5,05"), "--beams names 5 twice"), (("--users", "0"), "--users must be at least 1, got 0"),
    (("--users", "many"), "invalid int value"), (("--baselines", "popularity"), "Leave --baselines out"),
    (("--suite", "apoa"), "'apao'"), (("--row", "TIGER + CE"), "row 'TIGER + CE'"), (("--seeds", "a"), "--seeds takes"),
    (("--objectives", "cross_entrpy"), "cross_entropy"), (("--jobs", "0"), "--jobs must be"),
    (("--set", "tiger.widht=3"), "width"), (("--device", "gpu"), "--device takes"), (("--beam", "5"), "--beams"),
])
def test_mistakes_are_one_message_before_anything_starts(world: World, capsys: Any, words: tuple[str, ...],
                                                         message: str) -> None:
    before = files(world.results)
    assert world.call(*words) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.startswith("error: ") and not printed.out
    assert files(world.results) == before


def test_a_damaged_diagnosis_is_named(world: World, capsys: Any) -> None:
    record = world.store.read_all()[0]
    path = diagnoses.path_of(world.store, record)
    path.write_bytes(b"nothing")
    assert world.call("--beams", "20") == 2 and str(path) in capsys.readouterr().err
