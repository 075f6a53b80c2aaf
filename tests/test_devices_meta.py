"""Other devices than the CPU, as far as a machine without one can tell.

On torch's device `meta` tensors have shapes and no values, so whatever asks the device for a number fails there. What
asks on purpose is counted and answered by `Questions`.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from genrec_bench.backbones.tiger_network import buckets_on
from genrec_bench.batches import TokenisedInstances
from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.core import devices, registry
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.config import TrainingConfig
from genrec_bench.objectives.base import Objective
from genrec_bench.running.folders import check_devices
from genrec_bench.search.beam import beam_search, exact_ranks, exact_top_k
from genrec_bench.search.diagnose import diagnose_users
from genrec_bench.search.prefix_scores import PrefixScores
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.training.feed import InputFeed, add_gradient
from genrec_bench.training.loop import adamw, initial_states, one_epoch
from genrec_bench.training.micro_batches import GIB, kept_bytes
from genrec_bench.training.passes import Pass, ahead, joined
from genrec_bench.trie import Trie

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

SIZES = {"width": 16, "num_layers": 1, "num_heads": 2, "head_width": 8, "feed_forward_width": 32}
BACKBONES = {"tiger": {"dropout": 0.1}, "llama": {}}
FEW = {"num_negatives": 5}
OBJECTIVES: dict[str, list[dict[str, Any]]] = {  # every registered one, in each form that computes something else
    "cross_entropy": [{}, {"eos": True}],
    "msl": [{}, {"adaptive": True}, {"average": "batch", "skip_forced": True}],
    "apao": [{}, {"weights": "hard_max"}, {"form": "pairwise", "negative_scale": True, **FEW},
             {"form": "pairwise", "weights": "released", "released_numerics": True, **FEW}],
    "bear": [{}, {"vocabulary": "trie", "few_children": "min"}, {"form": "released"},
             {"on": "target_minus_negatives", "vocabulary": "trie", "mask_shared": True, **FEW}],
    "bear_beam": [{}, {"normaliser": "trie", "num_beams": 4}],
    "dpo": [{}, {"reference": "none"}],
    "dmpo": [FEW, {"form": "released", **FEW}],
    "s_dpo": [FEW, {"mask_duplicates": True, **FEW}]}


def every_form(name: str) -> list[tuple[float, Objective]]:
    return [(0.5 + n, build(name, n)) for n in range(len(OBJECTIVES[name]))]


def build(name: str, number: int) -> Objective:
    return registry.objectives.build({"name": name, **OBJECTIVES[name][number]})


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


class World:
    """A small network on the toy data, its training rows and a trie, on some device."""

    def __init__(self, interactions: Interactions, backbone: str, device: str, *, ragged: bool = False) -> None:
        codes = interactions.given_codes.copy()
        if ragged:
            codes[20:24, 2] = -1
        self.ids = SemanticIds.from_codes(codes)
        self.trie = Trie.from_codes(self.ids.tokens)
        settings = registry.backbones.build({"name": backbone, **SIZES, **BACKBONES[backbone]})
        self.model = settings.build(self.ids.vocab_size, 3).to(device)
        self.reference = copy.deepcopy(self.model).eval().requires_grad_(False)
        split = LeaveOneOut(train_targets_per_user=2).split(interactions)
        self.data = TokenisedInstances(split.train, self.ids, self.model.history_suffix, device)

    def feed(self, *objectives: Objective, **rest: Any) -> InputFeed:
        feed = InputFeed(self.model, self.data, objectives, trie=self.trie, reference=self.reference, **rest)
        feed.begin(1)
        return feed


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
        return torch.tensor([counts, [0] * len(counts), [0] * len(counts)])

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


# One optimiser step is one pass

def gradient(world: World, pairs: list[tuple[float, Objective]], at_once: int,
             reduction: str) -> tuple[float, list[Tensor], list[dict[str, Tensor]]]:
    """Loss, gradients and run state after a step of three forward passes of 20, 20 and 7 rows."""
    rows = np.random.default_rng(0).permutation(len(world.data))[:47]
    feed, states = world.feed(*(o for _, o in pairs)), initial_states(pairs, world.data)
    world.model.zero_grad()
    total = sum(add_gradient(feed, pairs, states, one, one.rows, reduction)
                for one in joined([[rows[:20], rows[20:40], rows[40:]]], at_once))
    return float(total), [p.grad.clone() for p in world.model.parameters() if p.grad is not None], states


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_joined_passes_have_the_gradient_of_passes_one_by_one(toy_interactions: Interactions, name: str,
                                                              reduction: str) -> None:
    """Also where rows are coupled and weights move from pass to pass; two passes of three together are a case, too."""
    world = World(toy_interactions, "tiger" if reduction == "mean" else "llama", "cpu", ragged=True)
    world.model.eval()  # without dropout, whose masks are drawn pass by pass
    loss, gradients, states = gradient(world, every_form(name), 1, reduction)
    for at_once in (2, 3):
        total, seen, moved = gradient(world, every_form(name), at_once, reduction)
        assert total == pytest.approx(loss, rel=1e-5)
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(gradients, seen, strict=True))
        for one, other in zip(states, moved, strict=True):
            assert all(torch.allclose(one[key], other[key], rtol=1e-5) for key in {**one, **other})


def test_passes_of_a_step_by_hand() -> None:
    parts = [np.array([4, 5]), np.array([1, 9]), np.array([7])]
    alone, together, two = (list(joined([parts, parts[:1]], n)) for n in (1, 3, 2))
    assert [one.closes_step for one in alone] == [False, False, True, True]
    assert [one.rows.tolist() for one in together] == [[4, 5, 1, 9, 7], [4, 5]]
    assert [(one.rows.tolist(), one.step_rows, one.closes_step) for one in two] == [
        ([4, 5, 1, 9], 5, False), ([7], 5, True), ([4, 5], 2, True)]
    assert together[0].slices == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_a_gpu_joins_what_its_memory_holds(toy_interactions: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a GPU of 80 GiB where the setting is 0; 300 rows fit 2 passes of 128, and 100 rows still one."""
    world, asked = World(toy_interactions, "tiger", "cpu"), []
    feed = world.feed()
    assert feed.joins(128, 8) == 1, "a CPU takes passes as they come"
    feed.data.device = "cuda:1"
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * GIB))
    for setting, fit, expected in ((0.0, 300, 2), (3.0, 100, 1), (0.0, 10**6, 8)):
        monkeypatch.setattr(feed, "rows_within", lambda gib, fit=fit: asked.append(gib) or fit)
        feed.memory_gib = setting
        assert feed.joins(128, 8) == expected and feed.joins(128, 1) == 1
    assert asked == [40.0, 3.0, 40.0]


@pytest.mark.parametrize("name", ["cross_entropy", "s_dpo"])
def test_rows_within_a_bound_stay_within_it(toy_interactions: Interactions, name: str) -> None:
    """All of them like the longest history: what autograd keeps and the logits, with the factors of a bound.

    A third of it at least: the pass of one row alone, from which is judged, has rows of padding on a CPU.
    """
    world, objective = World(toy_interactions, "tiger", "cpu"), build(name, 0)
    feed = world.feed(objective)
    rows = feed.rows_within(0.01)
    batch = feed.prepare(np.full(rows, feed.data.instances.lengths.argmax()))
    forward, (users, positions) = feed._forward(batch)
    logits = 4 * users * positions * world.ids.vocab_size
    assert users == rows > 10
    assert 0.3 < (1.5 * kept_bytes(lambda: forward(slice(None)), world.model) + 6 * logits) / (0.01 * GIB) <= 1.0


# Batches ahead

def test_a_thread_prepares_one_pass_ahead() -> None:
    """The second batch is begun while the first is used, the third only then."""
    begun = [threading.Event() for _ in range(3)]

    def prepare(rows: np.ndarray) -> Any:
        begun[rows[0]].set()
        return threading.get_ident(), rows.tolist()

    found = []
    for one, (thread, rows) in ahead(prepare, (Pass([np.array([n])], 1, True) for n in range(3))):
        assert one.rows.tolist() == rows and thread != threading.get_ident()
        assert begun[min(rows[0] + 1, 2)].wait(5) and not (rows == [0] and begun[2].is_set())
        found += rows
    assert found == [0, 1, 2] and list(ahead(prepare, [])) == []


def test_what_fails_ahead_fails_where_it_is_used() -> None:
    def prepare(rows: np.ndarray) -> Any:
        raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        list(ahead(prepare, [Pass([np.array([0])], 1, True)]))


def test_a_cpu_prepares_when_it_is_asked(toy_interactions: Interactions) -> None:
    feed, rows = World(toy_interactions, "tiger", "cpu").feed(), [np.array([3, 1]), np.array([2])]
    assert [seen is part for (_, seen), part in zip(feed.each_pass([rows], 1), rows, strict=True)] == [True, True]


def test_prepared_batches_give_the_same_inputs(toy_interactions: Interactions) -> None:
    world, rows = World(toy_interactions, "llama", "cpu", ragged=True), np.arange(0, 60, 5)
    feed = world.feed(*(o for _, o in every_form("s_dpo")))
    one, other = feed.inputs(rows), feed.inputs(feed.prepare(rows))
    for name in ("targets", "logits", "node_logits", "negative_nodes", "reference_negative_token_logps"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_a_gpu_is_copied_to_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: calls.append((a, k)) or self)
    devices.on_device("cuda:1", np.arange(3))
    assert calls == ["pinned", (("cuda:1",), {"non_blocking": True})]
    devices.on_device("cpu", np.arange(3))
    assert calls[2:] == [(("cpu",), {"non_blocking": True})]


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
