"""Other devices than the CPU, as far as a machine without one can tell.

On torch's device `meta` tensors have shapes and no values, so whatever asks the device for a number fails there. What
asks on purpose is counted and answered by `Questions`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from genrec_bench.backbones.tiger_network import buckets_on
from genrec_bench.contracts import Interactions
from genrec_bench.core import devices, registry
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.config import TrainingConfig
from genrec_bench.objectives.base import Objective
from genrec_bench.running.folders import check_devices
from genrec_bench.search.beam import beam_search, exact_ranks, exact_top_k
from genrec_bench.search.diagnose import diagnose_users
from genrec_bench.search.prefix_scores import PrefixScores
from genrec_bench.training.loop import initial_states, one_epoch
from genrec_bench.training.optimiser import adamw
from tests.toy_world import BACKBONES, OBJECTIVES, World, build, every_form

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

MOVES = {"_to_copy", "to", "copy_"}
NUMBERS = {"item", "is_nonzero", "_local_scalar_dense"}  # the first two where inference mode is on


class Questions(TorchDispatchMode):
    """Counts what the host asks of device `meta` and answers: numbers with False and 0, copies as told, else zeros.

    A copy to the device that the host waits for is counted too, as "constant".
    """

    def __init__(self, *copies: Tensor) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.copies = list(copies)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, given = func.name().split("::")[1].split(".")[0], (*args, *(kwargs or {}).values())
        asked = next((a for a in args if isinstance(a, Tensor) and a.device.type == "meta"), None)
        if asked is not None and name in NUMBERS:
            self.count["number"] += 1
            return False if name == "is_nonzero" else torch.zeros((), dtype=asked.dtype).item()
        if asked is not None and any(torch.device("cpu") == value for value in given):
            self.count["copy"] += 1
            return self.copies.pop(0) if self.copies else torch.zeros(asked.shape, dtype=asked.dtype)
        result = func(*args, **(kwargs or {}))
        if name in MOVES and getattr(result, "is_meta", False) and not any(v is True for v in given):
            self.count["constant"] += not [a for a in args if isinstance(a, Tensor)][-1].is_meta
        return result

    def __enter__(self) -> Questions:
        self.constants = Constants(self.count)
        self.constants.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.constants.__exit__(*error)


class Constants(TorchFunctionMode):
    """Counts what `torch.tensor` puts on device `meta`, which the mode above does not see."""

    def __init__(self, count: Counter[str]) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count["constant"] += func in (torch.tensor, torch.as_tensor) and result.is_meta and result is not args[0]
        return result


class HostQuestions(TorchFunctionMode):
    """Counts, on a CPU, the calls by which Python asks a tensor for its values."""

    NAMES = frozenset({"tolist", "item", "__bool__", "__int__", "__float__", "__index__", "nonzero", "unique", "cpu",
                       "numpy", "masked_select"})

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.NAMES:
            self.count[name] += 1
        if name in ("__getitem__", "__setitem__"):
            keys = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.count["mask"] += any(isinstance(k, Tensor) and k.dtype == torch.bool for k in keys)
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=BACKBONES)
def meta(toy_interactions: Interactions, request: pytest.FixtureRequest) -> World:
    return World(toy_interactions, request.param, "meta")


# Determinism: what cuBLAS needs is there before CUDA is

ASKS = """
import os, torch
def seen(*_):
    print(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
    return {answer}
torch.cuda.is_available = seen
torch.use_deterministic_algorithms = seen
{started}
{code}
"""
GATE = 'from genrec_bench.running.folders import check_devices; check_devices(["cuda"])'
CONFIGURED = 'from genrec_bench.running.generative import deterministic; deterministic(1, "cuda:1").__enter__()'
STARTED = "torch.cuda.is_initialized = lambda: True"


def in_a_process(code: str, value: str | None = None, started: str = "") -> str:
    """What a new process prints, CUDA's first question and its algorithms replaced by ones that tell the variable."""
    environment = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    environment |= {} if value is None else {"CUBLAS_WORKSPACE_CONFIG": value}
    done = subprocess.run([sys.executable, "-c", ASKS.format(answer=False, started=started, code=code)], check=False,
                          capture_output=True, encoding="utf-8", env=environment)
    return done.stdout + done.stderr


@pytest.mark.parametrize("code", [GATE, CONFIGURED])
def test_the_variable_is_set_when_torch_is_first_asked_for_cuda(code: str) -> None:
    assert in_a_process(code).splitlines()[0] == ":4096:8"


@pytest.fixture()
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(devices.WORKSPACE, "")
    monkeypatch.delenv(devices.WORKSPACE)
    return monkeypatch


def test_the_user_s_own_deterministic_value_stays(bare: pytest.MonkeyPatch) -> None:
    bare.setenv(devices.WORKSPACE, ":16:8")
    bare.setattr(torch.cuda, "is_initialized", lambda: True)
    devices.before_cuda()
    assert os.environ[devices.WORKSPACE] == ":16:8"


def test_another_value_and_a_late_start_say_how(bare: pytest.MonkeyPatch) -> None:
    bare.setenv(devices.WORKSPACE, ":0:0")
    with pytest.raises(UserError, match="is ':0:0'.*allowed are :4096:8 and :16:8.*export CUBLAS_WORKSPACE_CONFIG=:40"):
        check_devices(["cuda"])
    bare.delenv(devices.WORKSPACE)
    bare.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(UserError, match="already in use.*export CUBLAS_WORKSPACE_CONFIG=:4096:8"):
        check_devices(["cpu", "cuda:1"])
    assert devices.WORKSPACE not in os.environ


def test_a_cpu_sets_nothing(bare: pytest.MonkeyPatch) -> None:
    check_devices(["cpu"])
    assert devices.WORKSPACE not in os.environ


# Nothing waits for the device

def test_every_registered_objective_is_asked() -> None:
    assert set(OBJECTIVES) == set(registry.objectives.names())


def epoch(world: World, pairs: list[tuple[float, Objective]], **settings: Any) -> tuple[Counter[str], int]:
    """One epoch of one step, 100 rows in two passes: what was asked, and the steps made."""
    config = TrainingConfig(batch_size=50, accumulation=2, **settings)
    feed, state = world.feed(*(o for _, o in pairs), group_users=config.group_users), {"epoch": 0, "step": 0}
    with Questions() as asked:
        one_epoch(world.model, feed, pairs, initial_states(pairs, world.data), adamw(world.model, config), config, 0,
                  state, 1)
    return +asked.count, state["step"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_training_epoch_asks_one_question(meta: World, name: str) -> None:
    """Prepared, forward, losses, backward, clipping and AdamW; the one question is the mean loss, at the end."""
    assert epoch(meta, every_form(name), clip_norm=1.0) == ({"number": 1}, 1)


def test_so_does_packed_training(toy_interactions: Interactions) -> None:
    world = World(toy_interactions, "llama", "meta")
    assert epoch(world, every_form("msl"), group_users=True) == ({"number": 1}, 1)


def test_questions_are_seen() -> None:
    """What must not be there would be counted or fail."""
    x = torch.zeros(2, device="meta")
    with Questions() as asked:
        assert x.tolist() == [0, 0] and float(x.sum()) == 0 and not x.any()
        with torch.inference_mode():
            assert x.tolist() == [0, 0] and float(x.sum()) == 0 and not x.any()
        for question in (lambda: x[x > 0], lambda: x.nonzero(), lambda: x.unique()):
            with pytest.raises(NotImplementedError):
                question()
        torch.ones(2).to("meta", non_blocking=True)
    assert +asked.count == {"number": 4, "copy": 2}
    with Questions() as asked:
        for mode in (False, True):
            with torch.inference_mode(mode):
                torch.tensor([1, 2], device="meta")
                torch.empty(2, device="meta").copy_(torch.ones(2))
                torch.from_numpy(np.ones(2)).to("meta", torch.long)
    assert +asked.count == {"constant": 6}


SEARCHES = [{}, {"normaliser": "trie"}, {"eos": True}, {"temperature": 2.0, "precision": "bfloat16"},
            {"without": [np.array([0, 1, 2])] * 4}]


@pytest.mark.parametrize("settings", SEARCHES, ids=lambda s: ",".join(s) or "flat")
def test_a_beam_search_asks_one_question(meta: World, settings: dict[str, Any]) -> None:
    histories = meta.data.histories(np.arange(4))
    with Questions() as asked:
        beams = beam_search(meta.model.eval(), histories, meta.trie, num_beams=6, **settings)
    assert +asked.count == {"number": 1} and beams.ids.shape == (4, 6)
    with Questions() as asked:
        beam_search(meta.model, histories, meta.trie, num_beams=6, asks=False, **settings)
    assert not +asked.count


def test_a_diagnosis_asks_once_a_level_and_a_round(meta: World) -> None:
    """Of 4 users: two levels are read, then all users have open prefixes, then one, who goes on alone, then nobody."""
    def answer(*counts: int) -> Tensor:
        return torch.tensor([counts, *[[0] * len(counts)] * 3])

    rows, answers = np.arange(4), [answer(3, 3, 2, 3), answer(5, 4, 5, 5), answer(1, 2, 1, 1), answer(0, 0, 2, 0)]
    with Questions(*answers, answer(0)) as asked:
        facts = diagnose_users(meta.model.eval(), meta.data.histories(rows), meta.trie, meta.data.targets(rows),
                               beams=(2, 5), normalisers=("flat", "trie"), top=5)
    # the targets' IDs are known; five questions of the search; all facts together
    assert +asked.count == {"number": 1, "copy": 6} and facts["trie/retained"].shape == (4, 2, 3)


@pytest.mark.parametrize("search", ["top", "ranks", "diagnosis"])
def test_exact_search_asks_as_often_as_it_expands(toy_interactions: Interactions, monkeypatch: pytest.MonkeyPatch,
                                                  search: str) -> None:
    world, expand, expanded = World(toy_interactions, "tiger", "cpu", ragged=True), PrefixScores.expand, []
    monkeypatch.setattr(PrefixScores, "expand", lambda *a: expanded.append(1) or expand(*a))
    rows, model = np.arange(0, 60, 5), world.model.eval()
    histories, targets = world.data.histories(rows), world.data.targets(rows)
    with HostQuestions() as asked:
        if search == "top":
            exact_top_k(model, histories, world.trie, k=5)
        elif search == "ranks":
            exact_ranks(model, histories, world.trie, targets)
        else:
            diagnose_users(model, histories, world.trie, targets, beams=(2, 5), normalisers=("flat", "trie"), top=5)
    once = {"top": {}, "ranks": {"__bool__": 1}, "diagnosis": {"__bool__": 1, "cpu": 1, "numpy": 1}}[search]
    assert +asked.count == {"tolist": len(expanded), **once}
    assert world.trie.depth <= len(expanded) <= world.trie.depth + 3, "the levels of a beam, and few rounds more"


# Traps

def test_float32_is_without_autocast_inside_another() -> None:
    x = torch.ones(2, 2)
    with devices.autocast("cpu", "bfloat16"):
        assert (x @ x).dtype == torch.bfloat16
        with devices.autocast("cpu", "float32"):
            assert (x @ x).dtype == torch.float32
    with devices.autocast("cpu", "float32"), devices.autocast("meta", "bfloat16"):
        assert (x @ x).dtype == torch.float32


def test_a_search_leaves_nothing_that_training_could_not_use(toy_interactions: Interactions) -> None:
    """Tables of position biases are kept, and what inference mode makes has no gradient."""
    world = World(toy_interactions, "tiger", "cpu")
    buckets_on.cache_clear()
    beam_search(world.model, world.data.histories(np.arange(4)), world.trie, num_beams=3)
    world.feed().inputs(np.arange(4)).logits.sum().backward()
    assert buckets_on.cache_info().hits


def test_wrong_logits_in_a_search_of_training_are_a_loss_that_is_not_finite(toy_interactions: Interactions) -> None:
    world, pairs = World(toy_interactions, "tiger", "cpu"), [(1.0, build("bear_beam", 0))]
    feed = world.feed(pairs[0][1])
    with torch.no_grad():
        world.model.shared.weight.fill_(torch.nan)
    assert feed.inputs(np.arange(3)).beam_thresholds.isnan().all()
    with pytest.raises(FloatingPointError, match="the training loss of epoch 1 is nan"):
        config = TrainingConfig(batch_size=50)
        one_epoch(world.model, feed, pairs, initial_states(pairs, world.data), adamw(world.model, config), config, 0,
                  {"epoch": 0, "step": 0}, 2)
