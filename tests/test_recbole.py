"""RecBole: its rows against ours, BERT4Rec's protocol, fences around its side effects, determinism, failures."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from baselines import recbole_adapter
from baselines.recbole_models import BERT4Rec, SASRec
from genrec_bench.contracts import Interactions, Split
from genrec_bench.core import registry
from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.splits.leave_one_out import LeaveOneOut
from tests.processes import is_alive, until
from tests.small_jobs import Quiet, job_of, made_of, papers_data, run, toy
from tests.test_cli import ROOT, environment

TINY = {"n_layers": 1, "hidden_size": 8, "inner_size": 8, "epochs": 2, "batch_size": 32}
MODELS = {name: cls for name in registry.baselines.names()
          if issubclass(cls := registry.baselines.get(name), recbole_adapter.RecBole)}
needs_recbole = pytest.mark.skipif(importlib.util.find_spec("recbole") is None, reason="RecBole is not installed")


# --- settings and devices --------------------------------------------------------------------------------------------

def test_settings_are_strict() -> None:
    """A model has its own settings only; what does not fit together is refused when it is built."""
    with pytest.raises(UserError, match="Did you mean 'mask_ratio'"):
        registry.baselines.build({"name": "bert4rec", "mask_ration": 0.3})
    with pytest.raises(UserError, match="unknown setting 'mask_ratio' in baseline sasrec"):
        registry.baselines.build({"name": "sasrec", "mask_ratio": 0.3})
    for name in ("sasrec", "bert4rec", "core"):
        with pytest.raises(UserError, match=f"baseline {name}: n_heads = 3 must divide the width 64"):
            registry.baselines.build({"name": name, "n_heads": 3})
    with pytest.raises(UserError, match="CORE has loss_type CE only"):
        registry.baselines.build({"name": "core", "loss_type": "BPR"})
    assert registry.baselines.build({"name": "nextitnet"}).dilations == (1, 4)


def test_devices() -> None:
    environment = recbole_adapter.child_environment
    assert environment("cpu", 2, {"CUDA_VISIBLE_DEVICES": "3"})[0]["CUDA_VISIBLE_DEVICES"] == ""
    assert environment("cuda", 1, {"CUDA_VISIBLE_DEVICES": "3,5"})[1] == "3"
    assert environment("cuda:1", 1, {"CUDA_VISIBLE_DEVICES": "3,5"})[1] == "5"
    assert environment("cuda:2", 1, {})[1] == "2"
    assert environment("cpu", 2, {})[0]["OMP_NUM_THREADS"] == "2"
    for device, visible in (("cuda:2", "3,5"), ("cuda", ""), ("tpu", "0"), ("cuda:x", "0")):
        with pytest.raises(UserError, match=device):
            environment(device, 1, {"CUDA_VISIBLE_DEVICES": visible})


# --- RecBole, looked at from inside one child ------------------------------------------------------------------------

PROBE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from baselines import _recbole_child as child

root, found = Path(sys.argv[1]), {}
del sys.argv[1:]


def losses(case, setup, spec, rows):
    # The loss of the same masks before and after every target is replaced by the next item.
    for shift in (0, 1):
        train = rows["train"]
        targets = (train.targets + shift) % spec["num_items"]
        changed = {**rows, "train": child.Instances(train.users, targets, train.histories)}
        table = child.set_up(spec, changed, case).tables["train"][np.arange(64)]
        child.init_seed(1, True)
        batch = setup.train_data.transform(setup.train_data._dataset, table)
        with torch.no_grad():
            yield float(setup.model.calculate_loss(batch)), batch["Pos_item_id"][:, -1].tolist()


def read_by(setup):
    # What the network is given when it ranks.
    seen, forward = [], setup.model.forward
    setup.model.forward = lambda items: seen.append(items.tolist()) or forward(items)
    with torch.no_grad():
        setup.model.full_sort_predict(setup.tables["test"][np.arange(40)])
    setup.model.forward = forward
    return seen[0]


for case in sorted(p for p in root.iterdir() if p.is_dir()):
    spec = json.loads((case / "input.settings").read_text())
    rows = child.read_parts(case)
    setup = child.set_up(spec, rows, case)
    fields = ("user_id", "item_id_list", "item_id", "item_length")
    np.savez(case / "tables.npz", **{f"{part}_{f}": table[f].numpy() for part, table in setup.tables.items()
                                     for f in fields})
    note = found[case.name] = {"items": setup.model.n_items, "files": sorted(p.name for p in case.iterdir())}
    if case.name == "whole":
        note["loss"] = float(setup.trainer._train_epoch(setup.train_data, 0))
    elif spec["settings"]["model"] == "BERT4Rec":
        setup.model.eval()
        note["losses"], note["labels"] = zip(*losses(case, setup, spec, rows))
        note["read"], note["mask"] = read_by(setup), setup.model.mask_token
        batch = setup.train_data.transform(setup.train_data._dataset, setup.tables["train"][np.arange(4)])
        batch.update(child.Interaction({"MASK_INDEX": torch.zeros_like(batch["MASK_INDEX"])}))
        note["empty"] = float(setup.model.calculate_loss(batch))
    elif case.name != "office":
        total = setup.trainer._train_epoch(setup.train_data, 0)
        note["loss"] = float(sum(total) if isinstance(total, tuple) else total)
        scorer = child.Scorer(setup.model, setup.tables["test"], rows["test"], 5, 16)
        note["ranks"] = scorer.rank().kept.ranks.tolist()
(root / "found.json").write_text(json.dumps(found))
"""
ZOO = [(name, loss) for name in MODELS if name != "bert4rec"
       for loss in ("CE", "BPR") if (name, loss) != ("core", "BPR")]
TINY_ALL = {"hidden_size": 8, "inner_size": 8, "embedding_size": 8, "n_layers": 1, "block_num": 1, "nh": 2, "nv": 2}


def small(name: str, **values) -> recbole_adapter.RecBole:
    own = {f.name for f in dataclasses.fields(MODELS[name])}
    return MODELS[name](batch_size=32, **{k: v for k, v in TINY_ALL.items() if k in own}, **values)


def office() -> Interactions | None:
    root = papers_data()
    dataset = registry.datasets.build({"name": "apao_office"})
    return None if root is None or dataset.missing_files(root) else dataset.load(root)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """One child that builds every case: its folder and what it found."""
    root = tmp_path_factory.mktemp("probe")
    cases = {f"{name}_{loss}": small(name, loss_type=loss) for name, loss in ZOO}
    cases |= {p: small("bert4rec", protocol=p, ft_ratio=1.0) for p in ("target_appended", "stock")}
    data = {name: toy() for name in cases}
    cases["whole"], data["whole"] = small("bert4rec"), made_of([list(range(10)) * 2] * 30, 10)
    if (real := office()) is not None:
        cases["office"], data["office"] = small("sasrec"), real
    for name, baseline in cases.items():
        (root / name).mkdir()
        split = LeaveOneOut() if name in ("office", "whole") else LeaveOneOut(max_history=5)
        recbole_adapter.write_input(root / name, job_of(root / name, data[name], split=split),
                                    baseline.child_settings(), "")
    environment = recbole_adapter.child_environment("cpu", 1)[0]
    done = subprocess.run([sys.executable, "-c", PROBE, str(root)], capture_output=True, text=True, cwd=root,
                          env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, json.loads((root / "found.json").read_text())


def check_rows(folder: Path, split: Split, width: int, appended: bool = False) -> None:
    """Every row of RecBole's three tables is ours, user by user."""
    with np.load(folder / "tables.npz") as tables:
        for part in recbole_adapter.PARTS:
            ours = getattr(split, part)
            extra = appended and part == "train"
            assert tables[f"{part}_user_id"].tolist() == (ours.users + 1).tolist()
            assert tables[f"{part}_item_id"].tolist() == (ours.targets + 1).tolist()
            lists, lengths = tables[f"{part}_item_id_list"], tables[f"{part}_item_length"]
            assert lists.shape == (len(ours), width + appended) and len(lengths) == len(ours)
            for row in range(len(ours)):
                expected = [*(ours.history(row)[-width:] + 1), *([ours.targets[row] + 1] if extra else [])]
                assert lengths[row] == len(expected)
                assert lists[row].tolist() == expected + [0] * (width + appended - len(expected))


@needs_recbole
@pytest.mark.parametrize("case", ["sasrec_CE", "target_appended", "stock"])
def test_rows_are_ours(probe: tuple[Path, dict], case: str) -> None:
    split = LeaveOneOut(max_history=5).split(toy())
    check_rows(probe[0] / case, split, 5, appended=case == "target_appended")
    assert probe[1][case]["items"] == toy().num_items + 1, "never-seen items are ranked too"


@needs_recbole
def test_rows_are_ours_on_office(probe: tuple[Path, dict]) -> None:
    if "office" not in probe[1]:
        pytest.skip("no data of APAO's Office (set GENREC_BENCH_DATA)")
    check_rows(probe[0] / "office", LeaveOneOut().split(office()), 20)


@needs_recbole
def test_bert4rec_learns_from_its_targets(probe: tuple[Path, dict]) -> None:
    """With ft_ratio 1 only the last item of a row is masked: the target, or as shipped the history's newest item."""
    split = LeaveOneOut(max_history=5).split(toy())
    fixed, stock = probe[1]["target_appended"], probe[1]["stock"]
    targets = split.train.targets[:64]
    assert fixed["labels"] == [(targets + 1).tolist(), ((targets + 1) % 12 + 1).tolist()]
    assert fixed["losses"][0] != fixed["losses"][1]
    newest = [int(split.train.history(row)[-1]) + 1 for row in range(64)]
    assert stock["labels"] == [newest, newest]
    assert stock["losses"][0] == stock["losses"][1]


@needs_recbole
def test_bert4rec_reads_the_whole_history_when_it_ranks(probe: tuple[Path, dict]) -> None:
    split = LeaveOneOut(max_history=5).split(toy())
    for row in range(40):
        history = (split.test.history(row) + 1).tolist()
        fixed, stock = (probe[1][name] for name in ("target_appended", "stock"))
        full = [*history, fixed["mask"]]
        assert fixed["read"][row] == full + [0] * (6 - len(full))
        assert stock["read"][row] == full[1:] + [0] * (6 - len(full)), "as shipped, the oldest item is lost"


@needs_recbole
def test_bert4rec_trains_where_rows_hold_the_whole_catalogue(probe: tuple[Path, dict]) -> None:
    """RecBole would draw an item that such a row does not have, for ever."""
    assert np.isfinite(probe[1]["whole"]["loss"]) and probe[1]["whole"]["loss"] > 0


@needs_recbole
def test_bert4rec_survives_a_batch_without_masks(probe: tuple[Path, dict]) -> None:
    assert probe[1]["target_appended"]["empty"] == probe[1]["stock"]["empty"] == 0.0


@needs_recbole
@pytest.mark.parametrize(("name", "loss"), ZOO)
def test_other_models_train_and_rank(probe: tuple[Path, dict], name: str, loss: str) -> None:
    note = probe[1][f"{name}_{loss}"]
    assert np.isfinite(note["loss"]) and note["loss"] > 0
    assert len(note["ranks"]) == 40 and max(note["ranks"]) <= 5
    assert note["files"] == ["input.npz", "input.settings", "tables.npz"]


# --- RecBole, run --------------------------------------------------------------------------------------------------

LEFT = {"input.settings", "input.npz", "run.log", "best.safetensors", "output.npz", "output.result"}


@needs_recbole
def test_equal_runs_are_equal_and_leave_nothing_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run has a hostile command line; both have an empty current directory to litter."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = {name: value for name, value in vars(np).items() if name in ("float_", "float", "int", "object")}
    first = run({"name": "sasrec", **TINY}, tmp_path / "first")
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--learning_rate=0.5", "--epochs=9"])
    second = run({"name": "sasrec", **TINY}, tmp_path / "second")
    assert {p.name for p in (tmp_path / "first").iterdir()} == LEFT
    assert (tmp_path / "first/output.npz").read_bytes() == (tmp_path / "second/output.npz").read_bytes()
    assert (tmp_path / "first/best.safetensors").read_bytes() == (tmp_path / "second/best.safetensors").read_bytes()
    assert first.training == second.training and first.training["epochs"] == 2
    assert set(first.training) == {"epochs", "best_epoch", "curve", "parameters", "steps", "stopped"}
    assert [set(point) for point in first.training["curve"]] == [{"epoch", "loss", "valid_ndcg@10"}] * 2
    assert all(value > 0 for value in first.timings.values())
    assert len(first.test.ranks) == len(first.valid.ranks) == 40
    assert not any((tmp_path / "here").iterdir())
    assert not any(name.split(".")[0] == "recbole" for name in sys.modules)
    assert before == {name: value for name, value in vars(np).items() if name in ("float_", "float", "int", "object")}


@needs_recbole
def test_own_history_leaves_the_ranking(tmp_path: Path) -> None:
    spec = {"name": "bert4rec", **TINY, "mask_ratio": 0.4}
    outcome, rows = run(spec, tmp_path), LeaveOneOut(max_history=5).split(toy()).test
    new = np.array([target not in seen for seen, target in zip(rows.seen, rows.targets, strict=True)])
    left = np.array([12 - len(set(seen)) for seen in rows.seen])
    assert (outcome.test.ranks > 0).all() and np.array_equal(outcome.unseen.ranks > 0, new) and 0 < new.sum() < len(new)
    assert (outcome.unseen.ranks <= np.minimum(left, outcome.test.ranks)).all()


def test_each_seed_has_its_own_stream(tmp_path: Path) -> None:
    seeds = []
    for seed in (0, 0, 1):
        recbole_adapter.write_input(tmp_path, job_of(tmp_path, toy(), seed=seed), {}, "")
        seeds.append(json.loads((tmp_path / "input.settings").read_text())["seed"])
    assert seeds[0] == seeds[1] != seeds[2] and max(seeds) < 2**31


def test_what_the_data_rule_out_is_refused_at_planning(tmp_path: Path) -> None:
    """0.1 of 5 items and the target mask less than one; BPR draws what is in no row that holds all items."""
    job = job_of(tmp_path, toy())
    with pytest.raises(DoesNotFit, match="mask_ratio = 0.1 masks no item of a sequence of 6"):
        BERT4Rec(**TINY, mask_ratio=0.1).check_fit(job.config, job.split)
    BERT4Rec(**TINY, mask_ratio=0.2).check_fit(job.config, job.split)
    SASRec(**TINY).check_fit(job.config, job.split)
    whole = job_of(tmp_path, made_of([[0, 1, 2, 3, 4, 0, 1], [0, 1, 2, 3, 0, 1, 2]], 5))
    bpr = {"mask_ratio": 0.5, "loss_type": "BPR"}
    for protocol, refused in (("target_appended", "1 training rows have all of the 5 items"), ("stock", None)):
        baseline = BERT4Rec(**TINY, protocol=protocol, **bpr)
        with pytest.raises(DoesNotFit, match=refused) if refused else nullcontext():
            baseline.check_fit(whole.config, whole.split)
    SASRec(**TINY, loss_type="BPR").check_fit(whole.config, whole.split)
    alone = job_of(tmp_path, made_of([[0] * 4], 1))
    with pytest.raises(DoesNotFit, match="Use loss_type = CE"):
        SASRec(**TINY, loss_type="BPR").check_fit(alone.config, alone.split)


def test_a_run_of_recbole_leaves_no_json_and_says_that_it_never_resumes() -> None:
    names = (recbole_adapter.SPEC, recbole_adapter.RESULT, recbole_adapter.LOG)
    assert not [name for name in names if name.endswith(".json")]
    assert recbole_adapter.RecBole.resumes is False


@needs_recbole
def test_a_failing_child_raises_and_leaves_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recbole_adapter.RecBole, "child_settings", lambda self: {"model": "SASRec", "loss_type": "no"})
    with pytest.raises(RuntimeError, match=r"(?s)SASRec failed \(exit code 1\).*KeyError"):
        run({"name": "sasrec", **TINY}, tmp_path)
    assert "Traceback" in (tmp_path / "run.log").read_text()
    assert not (tmp_path / "output.result").exists()


@needs_recbole
def test_ctrl_c_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children = []
    popen = subprocess.Popen

    def remember(*args, **options) -> subprocess.Popen:
        children.append(popen(*args, **options))
        return children[-1]

    def interrupt(self: Quiet, done: int, total: int, note: str = "") -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(Quiet, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run({"name": "sasrec", **TINY, "epochs": 10_000, "patience": 10_000}, tmp_path)
    assert len(children) == 1 and children[0].returncode < 0
    assert not (tmp_path / "output.result").exists()


ENDLESS = """
import sys
from pathlib import Path
from tests.small_jobs import run
run({"name": "sasrec", "n_layers": 1, "hidden_size": 8, "inner_size": 8, "epochs": 100_000,
     "patience": 100_000}, Path(sys.argv[1]))
"""


@needs_recbole
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_the_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], cwd=ROOT, env=environment())
    until(lambda: (tmp_path / "run.log").exists() and (tmp_path / "run.log").stat().st_size)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) == 1 and is_alive(int(children[0]))
    parent.kill()
    parent.wait()
    until(lambda: not is_alive(int(children[0])), 20)
