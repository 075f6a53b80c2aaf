"""APAO's ablations: the whole method beside what is left without one of its parts or prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Chart
from genrec_bench.reporting.figures.comparisons import Line, compared
from genrec_bench.reporting.figures.runs import (
    complete,
    evidence,
    group_of,
    lacking,
    needed,
    not_drawn,
    path_of,
)
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite, effective

APAO = {"paper": "apao", "objectives": ("apao",)}
FORMS = {"pointwise": "APAO-Pointwise", "pairwise": "APAO-Pairwise"}
WHOLE = {"name", "form", "weight", "eta"}  # settings of APAO as the paper has it
DROPPED = {"drop_prefix", "renormalise"}
TITLES = {"2a": "What APAO loses without one of its parts on {}",
          "2b": "What APAO loses without the loss of one prefix on {}"}
BOTH, PLAIN = (("cross_entropy", "apao"),), (("cross_entropy",),)
Wanted = Mapping[str, Sequence[Row]]  # what a line is called -> the equal rows that it may be drawn of


@plate("2a", "APAO without one of its parts", **APAO)
def modules_figure(material: ReportData, block: Block) -> Chart | str | None:
    """The whole method, and without adaptive weights, cross-entropy or the prefix loss (APAO, 2a)."""
    return _ablation(material, block, "2a", modules, "each part in turn is left out; without adaptive weights means "
                     "equal ones, without the prefix loss cross-entropy alone. The paper says that every part "
                     "contributes")


@plate("2b", "APAO without the loss of one prefix", **APAO)
def dropped_figure(material: ReportData, block: Block) -> Chart | str | None:
    """The whole method, and without the loss of one prefix (APAO, 2b)."""
    return _ablation(material, block, "2b", prefixes, "the loss of one prefix in turn is left out and its weight goes "
                     "to the others; length 1 is the paper's prefix 0. The paper says that its loss matters most")


def _ablation(material: ReportData, block: Block, number: str, rows_of: Callable[..., Wanted],
              text: str) -> Chart | str | None:
    """A panel for each backbone and form that has complete runs of the whole method and of a part that is left out."""
    parts, absent, drawn_without = {}, [], []
    for family, groups in block.families().items():
        for form, name in FORMS.items():
            wanted = rows_of(material.suite, block, groups[0].row.backbone, form)
            gaps = lacking(block, wanted.values())
            whole, *others = wanted.values() if wanted else [()]
            left_out = [rows for rows in others if rows[0].stages != PLAIN]  # cross-entropy shows no part by itself
            if complete(block, whole) and any(complete(block, rows) for rows in left_out):
                parts[f"{family}, {name}"] = _lines(block, wanted)
                drawn_without += gaps
            elif left_out:
                absent += gaps
    if not parts:
        return needed(material, block, list(dict.fromkeys(absent)))
    caption = (f"{block.name}: NDCG@10 of test targets, after APAO's Figure {number} (there Beauty with Llama; form "
               f"and metric are not said): {text}; the values of its figure are not in its text. Here: "
               f"{evidence(material, block)}{not_drawn(list(dict.fromkeys(drawn_without + absent)))}")
    return compared(material, block, parts, TITLES[number].format(block.dataset), caption,
                    ("NDCG@10", "Difference to the whole method"))


def _lines(block: Block, wanted: Wanted) -> list[Line]:
    """A line for each row with runs; the first is what the others are measured by."""
    found = {label: group for label, rows in wanted.items() if (group := group_of(block, rows))}
    whole = next(iter(found.values()))
    return [Line(label, group, None if group is whole else whole) for label, group in found.items()]


def modules(suite: Suite, block: Block, backbone: str | None, form: str) -> dict[str, list[Row]]:
    """Rows of Figure 2a on one backbone, the whole method first; {} without it."""
    rows = [row for row in suite.rows if row.backbone == backbone]
    whole = _like(rows, BOTH, form, WHOLE)[:1]
    wanted = {"Whole method": whole, "Without adaptive weights": [
        row for row in _like(rows, BOTH, form, WHOLE | {"weights"}) if row.stated["objective"][-1].get("weights") ==
        "uniform"], "Without cross-entropy": _like(rows, (("apao",),), form, WHOLE),
        "Without prefix loss (cross-entropy)": _like(rows, PLAIN, None, {"name"})}
    return {label: same[:1] for label, same in wanted.items() if same} if whole else {}


def prefixes(suite: Suite, block: Block, backbone: str | None, form: str) -> dict[str, list[Row]]:
    """Rows of Figure 2b on one backbone, the whole method with the same weight and eta first; {} without both.

    Prefixes that are longer than the block's semantic IDs are left out.
    """
    rows = [row for row in suite.rows if row.backbone == backbone]
    depth = max((r.tokenizer.get("levels", 0) for g in block.groups for r in g.records), default=0)
    dropped = {row.stated["objective"][-1].get("drop_prefix", 0): [row]
               for row in _like(rows, BOTH, form, WHOLE | DROPPED)}
    dropped = {length: same for length, same in sorted(dropped.items()) if 0 < length <= depth}
    values = [_values(same[0], block.dataset) for same in dropped.values()]
    whole = [row for row in _like(rows, BOTH, form, WHOLE) if _values(row, block.dataset) in values]
    return {"Whole method": whole, **{f"Without prefixes of length {length}": same
                                      for length, same in dropped.items()}} if whole else {}


def _like(rows: Iterable[Row], stages: tuple, form: str | None, settings: set[str]) -> list[Row]:
    """Rows of these stages that state nothing of their last objective but these settings, and nothing of the rest."""
    return [row for row in rows if row.stages == stages and set(row.stated) == {"backbone", "objective"}
            and row.stated["objective"][-1].get("form") == form and set(row.stated["objective"][-1]) <= settings
            and all(set(spec) == {"name"} for spec in row.stated["objective"][:-1])]


def _values(row: Row, dataset: str) -> list[float]:
    """Weight and eta of a row on a dataset; an ablation has those of its whole method."""
    settings = effective(row, dataset)
    return [settings[path] for key in ("weight", "eta") if (path := path_of(row, f"apao.{key}"))]
