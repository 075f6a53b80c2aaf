"""How long an epoch and decoding take, in float32 and bfloat16, and what CUDA graphs would save."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_part import BACKBONES, Part
from genrec_bench.backbones.folding import prefix_tree
from genrec_bench.batches import TokenisedInstances
from genrec_bench.core.devices import autocast, is_cuda
from genrec_bench.core.errors import first_line
from genrec_bench.core.progress import Quiet
from genrec_bench.running.generative import deterministic
from genrec_bench.running.runner import run_one
from genrec_bench.running.workspace import Prepared
from genrec_bench.search.beam import beam_search
from genrec_bench.trie import Trie

PRECISIONS = ("float32", "bfloat16")
GRAPHED = {"float32": 1e-3, "bfloat16": 2e-2}  # a graph's products may be added up in another order
BEAMS, ROWS = 20, 128  # of a step at fixed shapes
Made = tuple[Tensor, ...]


def speed(part: Part) -> None:
    """Whole runs as records state their times, then single steps at fixed shapes, eager and as CUDA graphs."""
    for name in BACKBONES:
        for precision in PRECISIONS:
            with part.going_on(f"{name}, {precision}: a run"):
                whole_run(part, name, precision)
    if not is_cuda(part.device):
        part.note("CUDA graphs: a CPU has none, so their steps run eagerly twice")
    part.note(f"steps: {ROWS} rows at fixed shapes, {BEAMS} beams, without dropout and optimiser. The network reads in "
              "a beam search the history and every prefix; the tensors of the trie are made before")
    if is_cuda(part.device):
        torch.cuda.set_device(part.device)  # where graphs are captured
    with deterministic(torch.get_num_threads(), part.device):  # as in runs: it chooses the kernels
        for name, label in BACKBONES.items():
            prepared, _ = part.prepared(label, "speed")
            for precision in PRECISIONS:
                for kind, step in steps(prepared, part.device, precision).items():
                    with part.going_on(f"{name}, {precision}: {kind}"):
                        beside_graph(part, f"{name}, {precision}: {kind}", step, GRAPHED[precision])


def whole_run(part: Part, name: str, precision: str) -> None:
    """Two epochs, the second timed, and a decoded test set."""
    changes = {"decoding": {"precision": precision}, "training": {"precision": precision}}
    prepared, workspace = part.prepared(BACKBONES[name].split(" + ")[0] + " + cross-entropy", "speed", changes)
    cuda = is_cuda(part.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats(part.device)
    record = run_one(prepared, workspace, Quiet())
    rows, seconds = len(prepared.split.train), record.timings["seconds_per_epoch"]
    unit = "of the clock" if cuda else "of the processor"
    part.row(f"{name}, {precision}: an epoch of {rows} rows", seconds, f"seconds {unit}")
    part.row(f"{name}, {precision}: training", rows / seconds, "rows a second")
    part.row(f"{name}, {precision}: beam search of {prepared.config.decoding.num_beams}",
             record.timings["decode_users_per_second"], "users a second")
    if cuda:
        part.row(f"{name}, {precision}: most memory", torch.cuda.max_memory_allocated(part.device) / 2**30, "GiB")


def steps(prepared: Prepared, device: str, precision: str) -> dict[str, Callable[[], Made]]:
    """Work of one shape again and again, which asks the device nothing: what can become a CUDA graph."""
    ids = prepared.semantic_ids
    model = prepared.config.backbone.build(ids.vocab_size, 0).to(device).eval()
    data = TokenisedInstances(prepared.split.train, ids, model.history_suffix, device)
    rows = np.argsort(data.instances.lengths, kind="stable")[-ROWS:]
    histories, targets = data.histories(rows), data.targets(rows)
    tree = prefix_tree(targets[:, None], skip_pad=False)
    codes = torch.from_numpy(ids.tokens[:BEAMS]).to(device)  # any tokens do: the work does not depend on them
    trie = Trie.from_codes(ids.tokens)
    parents = torch.arange(len(codes), device=device).expand(len(rows), -1)

    def train() -> Made:
        model.zero_grad(set_to_none=True)
        with autocast(device, precision):
            logits = model.node_logits(histories, tree)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        return (loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None))

    @torch.inference_mode()
    def decode() -> Made:
        with autocast(device, precision):
            state = model.start(histories)
            logits, newest = state.first(), 0
            for level in range(codes.shape[1] - 1):
                chosen = torch.zeros_like(parents) if level == 0 else parents + newest
                newest += logits.shape[1]
                logits = state.advance(chosen, codes[:, level].expand(len(rows), -1))
        return (logits,)

    def search() -> Made:
        return (beam_search(model, histories, trie, num_beams=BEAMS, precision=precision, asks=False).scores,)

    return {"forward and backward": train, "the network in a beam search": decode, "a beam search": search}


def beside_graph(part: Part, what: str, step: Callable[[], Made], limit: float) -> None:
    """The time of a step, and of the same as a CUDA graph where it can be one."""
    expected = together(step())
    eager = milliseconds(step, part)
    part.row(f"{what}, eager", eager, "ms")
    try:
        replay, results = captured(step, part.device)
        replay()
        gap = float((together(results()) - expected).norm() / expected.norm())
    except RuntimeError as error:
        first: BaseException = error
        while first.__context__ is not None:  # what comes of ending a capture that failed says nothing
            first = first.__context__
        part.note(f"{what}: no CUDA graph: {first_line(first)}")
        part.spoilt = True
        return
    part.row(f"{what}, graph beside eager", gap, "length of the difference over the length", limit)
    graphed = milliseconds(replay, part)
    part.row(f"{what}, graph", graphed, f"ms, {eager / graphed:.1f} times as fast")


def together(results: Made) -> Tensor:
    """A copy of all that a step made, as one vector."""
    return torch.cat([tensor.detach().flatten().float() for tensor in results])


def captured(step: Callable[[], Made], device: str) -> tuple[Callable[[], Any], Callable[[], Made]]:
    """What replays a step, and what gives its results; on a CPU the step itself. Raises: RuntimeError."""
    if not is_cuda(device):
        kept: list[Made] = []
        return lambda: kept.__setitem__(slice(None), [step()]), lambda: kept[0]
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # what is set up at the first call must not be captured
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph.replay, lambda: result


def milliseconds(step: Callable[[], Any], part: Part, least_seconds: float = 0.5, most: int = 50) -> float:
    """The median time of a call, the device's work included."""
    taken: list[float] = []
    while len(taken) < (2 if part.tiny else 5) or (not part.tiny and sum(taken) < least_seconds and len(taken) < most):
        began = time.perf_counter()
        step()
        if is_cuda(part.device):
            torch.cuda.synchronize(part.device)
        taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken)
