"""Figures of BEAR drawn from diagnoses: what beam search loses under summed cross-entropy, MSL and BEAR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from genrec_bench.analysis import pruning
from genrec_bench.reporting.figures.base import plate, undiagnosed
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.diagnosed import fewer_seeds, line, looks_of
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.pruning import CAUSES, Diagnosed, Searched
from genrec_bench.reporting.report_data import ReportData

# What BEAR says of a language model that writes titles, B = 10: the lost shares and the share with a violation stand in
# the text to Figure 4, without K; the average change of the lost share in the text to Figure 6.
PRINTED_CAUSES = ("Printed, of a language model that writes titles: lost 88.28 % (Book) and 84.39 % (Toy), where K is "
                  "not said, and over 70 % of these with such a token in all settings")
PRINTED_CHANGE = "-24.86 %"
BEAR = {"paper": "bear", "objectives": ("bear",), "section": "pruning"}
VOCABULARIES = {"flat": "whole vocabulary", "trie": "valid tokens"}
REST = "another reason"


def _sft_and_bear(found: Searched, *between: str) -> dict[str, list[Diagnosed]]:
    """Each backbone's cross-entropy, rows with other objectives where there are any, and BEAR in its forms."""
    rows = {f: [r for r in (found.reference(f), *found.named(f, *between), *found.named(f, "bear")) if r]
            for f in found.families()}
    return {f: same for f, same in rows.items() if found.reference(f) and found.named(f, "bear")}


@plate("3", "Quality and loss by beam search, SFT and BEAR", **BEAR)
def accuracy_figure(material: ReportData, block: Block) -> Chart | str | None:
    """NDCG@10 and the lost share at beam 10, SFT and BEAR (BEAR, 3)."""
    found = material.searched[block.name]
    if found is None:
        return None
    beam, families = CAUSES[0], _sft_and_bear(found)
    if beam not in found.beams or not families:
        return undiagnosed("SFT and BEAR on one backbone", beam)
    points = [point(family, quantity, row.name, "mean", row.name, e.value, e)
              for family, rows in families.items() for row in rows
              for quantity, e in (("ndcg@10", row.estimate(pruning.beam_metric, metric="ndcg", k=10, beam=beam)),
                                  ("lost", row.estimate(pruning.pruning_rate, k=10, beam=beam))) if e.n]
    caption = (f"{block.name}: NDCG@10 (ID-level) and the share of the exact top 10 that beam {beam} loses (PR@10), "
               "after BEAR's Figure 3; 95 % intervals. The values of the paper's figure are not in its text")
    return Chart(f"What BEAR changes in quality and in what the beam loses on {block.dataset}",
                 caption + fewer_seeds(found, families), points,
                 {"ndcg@10": Axis("NDCG@10"), "lost": Axis("Lost of the exact top 10", percent=True)},
                 looks_of(material.look, families), legend=False, fewest=2)


@plate("4", "Why the beam loses targets", **BEAR)
def causes_figure(material: ReportData, block: Block) -> Chart | str | None:
    """The lost share of SFT split by cause, and the share with a violation (BEAR, 4)."""
    found = material.searched[block.name]
    if found is None:
        return None
    beam, tops = CAUSES
    families = {f: row for f in found.families() if (row := found.reference(f))}
    if beam not in found.beams or not families:
        return undiagnosed("SFT", beam)
    points = [p for family, row in families.items() for place, k in enumerate(tops)
              for p in _causes(family, row, place, k, beam)]
    caption = (f"{block.name}: targets of the exact top K that beam {beam} loses under cross-entropy, after BEAR's "
               f"Figure 4; coloured: some token is not among the {beam} likeliest of the whole vocabulary at its own "
               "prefix; below, the share of the lost ones for which that is so, among the whole vocabulary or valid "
               f"tokens alone; 95 % intervals. {PRINTED_CAUSES}")
    names = (*VOCABULARIES.values(), REST)
    return Chart(f"Why beam search loses targets that the model ranks high, on {block.dataset}",
                 caption + fewer_seeds(found, {f: [row] for f, row in families.items()}), points,
                 {"lost": Axis("Lost of the exact top K", percent=True),
                  "cause": Axis(f"Of these, with a token below {beam}", percent=True)},
                 {name: look(name) for name in names},
                 Axis("", ticks={float(place): f"K = {k}" for place, k in enumerate(tops)}), fewest=1, dodge=0.08,
                 heights={"cause": 0.8})


def _causes(family: str, row: Diagnosed, place: int, k: int, beam: int) -> list[dict[str, Any]]:
    """A bar of the lost share in two parts with its interval, and below the share of the causes."""
    lost = row.estimate(pruning.pruning_rate, k=k, beam=beam)
    causes = {name: row.estimate(pruning.violation_share, k=k, beam=beam, vocabulary=vocabulary)
              for vocabulary, name in VOCABULARIES.items()}
    if not lost.n:
        return []
    first, at = VOCABULARIES["flat"], float(place)
    part = lost.value * causes[first].value if causes[first].n else 0.0
    return [point(family, "lost", first, "bar", at, part, (0.0, None)),
            point(family, "lost", REST, "bar", at, lost.value, (part, None)),
            point(family, "lost", REST, "whisker", at, lost.value, lost, note=f"of {lost.n}"),
            *(point(family, "cause", name, "mean", at, e.value, e) for name, e in causes.items() if e.n)]


@plate("6", "What the beam loses under SFT, MSL and BEAR", **BEAR)
def rates_figure(material: ReportData, block: Block) -> Chart | str | None:
    """The lost share at beam 10 for K = 5 and 10: SFT, MSL and BEAR (BEAR, 6)."""
    found = material.searched[block.name]
    if found is None:
        return None
    (beam, tops), families = CAUSES, _sft_and_bear(found, "msl")
    if beam not in found.beams or not families:
        return undiagnosed("SFT and BEAR on one backbone", beam)
    points = [p for family, rows in families.items() for row in rows for p in line(
        family, "lost", row, map(float, range(len(tops))),
        [row.estimate(pruning.pruning_rate, k=k, beam=beam) for k in tops])]
    caption = (f"{block.name}: share of the exact top K that beam {beam} loses (PR@K), after BEAR's Figure 6; 95 % "
               f"intervals. Printed: {PRINTED_CHANGE} on average from SFT to BEAR, relative or in points is not said. "
               f"{_changes(found, families, tops, beam)}")
    absent = [f for f in families if not found.named(f, "msl")]
    if absent:
        caption += f" MSL has no diagnosis on {' and '.join(absent)}."
    return Chart(f"What beam search loses under each objective on {block.dataset}",
                 caption.rstrip(" .") + fewer_seeds(found, families), points,
                 {"lost": Axis(f"Lost of the exact top K\nat beam {beam}", percent=True)},
                 looks_of(material.look, families),
                 Axis("", ticks={float(place): f"K = {k}" for place, k in enumerate(tops)}), fewest=2, dodge=0.07)


def _changes(found: Searched, families: Mapping[str, Sequence[Diagnosed]], tops: Sequence[int], beam: int) -> str:
    """The mean change of the lost share from SFT to each form of BEAR, over backbones and K, with its range."""
    changes: dict[str, list[tuple[float, float]]] = {}
    for family in families:
        for row in found.named(family, "bear"):
            for k in tops:
                before, after = (r.estimate(pruning.pruning_rate, k=k, beam=beam)
                                 for r in (found.reference(family), row))
                if before.n and after.n and before.value:
                    gap = after.value - before.value
                    changes.setdefault(row.name, []).append((gap / before.value, gap))
    texts = [f"{name} {100 * fmean(r for r, _ in c):+.1f} % relative and {100 * fmean(p for _, p in c):+.1f} points, "
             f"mean of {len(c)} cells between {100 * min(r for r, _ in c):+.1f} and {100 * max(r for r, _ in c):+.1f} %"
             for name, c in changes.items()]
    return (f"Here, over backbones and K: {'; '.join(texts)}. The means have no interval; those of the cells "
            "are in the figure.") if texts else "Here SFT loses nothing."
