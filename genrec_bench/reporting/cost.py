"""What the rows cost: time, work and memory of each, equal and unequal budgets, and what whole grids would take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genrec_bench.core.errors import UserError
from genrec_bench.core.lazy import pandas
from genrec_bench.core.lists import grouped
from genrec_bench.experiments.suite_files import load_profile, profile_names
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.tables import DASH, by_family, listed, number, pipe
from genrec_bench.results.frame import PASSES

POSITIONS = PASSES[2]
PLAN = "plan.csv"  # below --results
MIB = 2**20
MEANS = ("parameters", "epochs", "best_epoch", "first_stage_epochs", "steps", "seconds_per_epoch", "train_seconds",
         "first_stage_seconds", "total_seconds", *PASSES, "decode_users_per_second", "peak_memory_bytes")
EFFICIENCY_HEADER = ("dataset", "profile", "method", "n", *MEANS, "device", "threads")
PLAN_HEADER = ("suite", "profile", "grid", "dataset", "runs", "seconds", "device", "threads")


def efficiency_rows(block: Block) -> list[list[Any]]:
    """Means over seeds, unrounded, in the order of EFFICIENCY_HEADER."""
    return [[block.dataset, block.profile, g.label, len(g.seeds), *map(g.mean, MEANS), _distinct(g, "device"),
             _distinct(g, "threads")] for g in block.groups]


def _distinct(group: Group, column: str) -> str:
    """The distinct values of a column, joined by "; "."""
    return "; ".join(sorted({str(value) for value in group.values(column) if value != ""})) or DASH


def efficiency(block: Block) -> str:
    """Cost of each method of a block: means over seeds, with units in the header."""
    def mean(name: str, digits: int = 0, unit: float = 1) -> Callable[[Group], str]:
        return lambda g: number(None if (found := g.mean(name)) is None else found / unit, digits)

    columns = {
        "Method": lambda g: g.label, "n": lambda g: str(len(g.seeds)), "Parameters": mean("parameters"),
        "Epochs run / best": lambda g: " / ".join(filter(None, epochs(g))) or DASH,
        "Positions with gradient (CE = 1)": multiples(block, POSITIONS),
        "without gradient (CE = 1)": multiples(block, PASSES[3]),
        "Processor time of training (s)": mean("train_seconds", 1),
        "of it first stage (s)": mean("first_stage_seconds", 1), "of an epoch (s)": mean("seconds_per_epoch", 2),
        "Decoding (users/s)": mean("decode_users_per_second"), "Peak memory (MiB)": mean("peak_memory_bytes", 0, MIB),
        "Device": lambda g: _distinct(g, "device"), "Threads": lambda g: _distinct(g, "threads")}
    return by_family(block, block.groups, lambda groups: listed(groups, columns))


def multiples(block: Block, column: str) -> Callable[[Group], str]:
    """What a row has of a column in multiples of the positions with gradient of cross-entropy on its backbone."""
    units = of_cross_entropy(block, POSITIONS)
    return lambda g: number(None if not units[g] or (own := g.mean(column)) is None else own / units[g], 2)


def positions(block: Block) -> Callable[[Group], str]:
    """All decoder positions of a row in such multiples: "1.00", or "1.00 + 13.67" with those without gradient."""
    own, search = multiples(block, POSITIONS), multiples(block, PASSES[3])
    return lambda g: own(g) if search(g) in (DASH, "0.00") else f"{own(g)} + {search(g)}"


def epochs(group: Group) -> tuple[str, str]:
    """Epochs that were run and the best one, means over seeds; "3 + 1" of two stages, "" where nothing is trained."""
    if not group.mean("epochs"):
        return "", ""
    run, kept = (f"{_count(first)} + {_count(group.mean(name))}" if (first := group.mean(f"first_stage_{name}"))
                 else _count(group.mean(name)) for name in ("epochs", "best_epoch"))
    return run, kept


def of_cross_entropy(block: Block, column: str) -> dict[Group, float | None]:
    """What cross-entropy on the backbone of each row has of a column, as a mean over seeds."""
    return {g: reference and reference.mean(column) for family, groups in block.families().items()
            for reference in [block.cross_entropy(family)] for g in groups}


def _count(value: float | None) -> str:
    return number(value, 0 if value is None or float(value).is_integer() else 1)


def budget(block: Block) -> str:
    """A line for each budget: rows with the same batch, stages and most epochs, and how many steps they had."""
    same, lines = grouped(block.groups, lambda g: _allowed(g) if g.values("steps") else (None,)), []
    for (rows, *_), groups in same.items():
        steps, before = (_span([s for g in groups for s in g.values(name)]) for name in ("steps", "first_stage_steps"))
        lines.append([", ".join(g.label for g in groups), steps or "not recorded", number(rows) if steps else DASH,
                      before or DASH, _more(block, groups) or DASH])
    return pipe(["Methods", "Optimiser steps", "Rows a step", "of it first stage", "More than cross-entropy"], lines)


def _allowed(group: Group) -> tuple[Any, ...]:
    """Rows a step, and the most epochs of both stages; equal for rows whose budgets are equal."""
    last, first = (stage.get("training") or {} for stage in (group.config, group.config.get("first_stage") or {}))
    baseline = group.config.get("baseline") or {}
    rows = last["batch_size"] * last["accumulation"] if last else baseline.get("batch_size")
    return rows, last.get("epochs", baseline.get("epochs")), first.get("epochs"), first.get("batch_size")


def _more(block: Block, groups: Sequence[Group]) -> str:
    """How many more steps these rows had than cross-entropy on the same backbone."""
    units = of_cross_entropy(block, "steps")
    extra = [(s - unit, s / unit) for g in groups if (unit := units[g]) and (s := g.mean("steps")) is not None]
    if not extra or not any(d for d, _ in extra):
        return ""
    difference, share = max(extra, key=lambda e: abs(e[0]))
    return f"{'' if len(set(extra)) == 1 else 'up to '}{difference:+,.0f} ({100 * (share - 1):+.0f} %)"


def _span(values: Sequence[float]) -> str:
    """`10` or `10 to 20`, "" for no values."""
    return " to ".join(f"{end:,.0f}" for end in sorted({min(values), max(values)})) if values else ""


def tuning(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """What the profiles' files say of how their settings were found: profile, text."""
    profiles = sorted({b.profile for b in blocks} & set(profile_names()))
    texts = {name: load_profile(name).get("tuning") for name in profiles}
    return [(name, " ".join(text.split())) for name, text in texts.items() if text]


def read_plan(path: Path) -> list[dict[str, str]]:
    """The lines of a saved plan, or none where there is none. Raises: UserError for a file that is no plan."""
    if not path.is_file():
        return []
    try:
        table = pandas.read_csv(path, dtype="str", keep_default_na=False)
        if tuple(table) != PLAN_HEADER:
            raise ValueError(f"its header is not {','.join(PLAN_HEADER)}")
        table.astype({"runs": "int64", "seconds": "float64", "threads": "int64"})
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is not a saved plan ({error}). Delete it, and run `plan --save` again.") from None
    return table.to_dict("records")


def grids(lines: Sequence[Mapping[str, str]], suites: Sequence[str]) -> str:
    """Runs and hours of every estimated grid of some suites, or "" where none was estimated."""
    rows = [[*(line[k] for k in ("suite", "profile", "grid", "dataset", "device", "runs")),
             number(float(line["seconds"]) / 3600, 1)]  # of all threads together
            for line in sorted(lines, key=lambda n: [n[k] for k in PLAN_HEADER]) if line["suite"] in suites]
    header = ["Suite", "Profile", "Grid", "Dataset", "Device", "Runs", "Hours of one core or device"]
    return pipe(header, rows, numeric_from=5) if rows else ""
