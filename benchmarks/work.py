"""What a piece of work costs: its multiply-adds beside what matrix products reach, and where its time goes."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Case, Clock, Products, Row

# Kinds of work by the ends of operator names, in the order they are asked; what fits none is "other".
KINDS = {
    "matrix products": ("::mm", "::addmm", "::bmm", "::baddbmm", "::addbmm", "_mkl_linear", "::mkldnn_linear"),
    "attention": ("_flash_attention_for_cpu", "::_scaled_dot_product_attention_math", "_softmax"),
    "copies": ("::copy_", "::cat", "::index", "::gather", "::index_select", "::embedding", "::clone", "::stack",
               "::index_put_", "::_index_put_impl_", "::scatter", "::scatter_", "::fill_", "::masked_fill",
               "::masked_fill_", "::where", "::constant_pad_nd"),
}


def products_of(settings: Any, rows: int, precision: str = "float32", aim: float | None = None) -> Products:
    """The matrix products of a layer of TIGER or Llama, from its settings: attention in and out, feed-forward."""
    inner, hidden = settings.num_heads * settings.head_width, settings.feed_forward_width
    return Products(rows, ((settings.width, inner), (inner, settings.width), (settings.width, hidden),
                           (hidden, settings.width)), precision, aim)


def gemm_rate(products: Products, clock: Clock, *, repeats: int = 15, calls: int = 20) -> float:
    """Multiply-adds a second of matrix products, all shapes together; median of the repeats."""
    dtype = getattr(torch, products.precision)
    pairs = [(torch.randn(products.rows, n, dtype=dtype), torch.randn(m, n, dtype=dtype)) for n, m in products.shapes]
    work = calls * products.rows * sum(n * m for n, m in products.shapes)
    rates = []
    with torch.inference_mode():
        for _ in range(repeats):
            began = clock()
            for _ in range(calls):
                for x, weight in pairs:
                    F.linear(x, weight)
            rates.append(work / (clock() - began))
    return statistics.median(rates)


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Of the two products, query by key and weights by value; the arguments are shapes."""
    users, heads, queries, width = query
    return 2 * users * heads * queries * key[2] * (width + value[3])


def multiply_adds(run: Callable[[], Any]) -> int:
    """Multiply-adds of matrix products and attention that a call carries out, padding included."""
    aten = torch.ops.aten
    counted = {aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        run()
    return counter.get_total_flops() // 2


def shares(run: Callable[[], Any]) -> dict[str, float]:
    """Where one call's processor time goes, by kind of operator, as shares that sum to 1."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    spent = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in profiler.key_averages():
        kind = next((k for k, ends in KINDS.items() if event.key.endswith(ends)), "other")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: time / total for kind, time in spent.items()}



def profiled(case: Case, speed: float, clock: Clock) -> list[Row]:
    """Rows about the first arm of a case on one thread: multiply-adds a unit, share of the GEMM rate, kinds of work.

    speed: its units a second.
    """
    arm, unit = case.arms[0], case.unit.removesuffix("s")
    needed = multiply_adds(arm.run) / arm.units
    rate = gemm_rate(case.products, clock)
    rows = [case.fact(f"multiply-adds of {arm.name}", needed / 1e6, f"million a {unit}"),
            case.fact("matrix products of these shapes alone", rate / 1e9, "billion multiply-adds a CPU second"),
            replace(case.fact(f"{arm.name} beside them", 100 * needed * speed / rate, "%"),
                    aim=case.products.aim)]
    return rows + [case.fact(f"time in {kind}", 100 * share, "%") for kind, share in shares(arm.run).items()]
