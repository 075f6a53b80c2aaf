"""A new method against stored ones: a page, its numbers, and a forest plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec_bench.analysis.significance import ALPHA, NUM_PERMUTATIONS, NUM_RESAMPLES
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical, csv_text, write_atomically
from genrec_bench.reporting import latex
from genrec_bench.reporting.families import UNTESTED, Test
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.tested import LOOKS, OUTCOMES, ZERO
from genrec_bench.reporting.load import Group
from genrec_bench.reporting.matching import EVERY, Rows, dataset_title, unequal_budget
from genrec_bench.reporting.pairs import Ranks, compared, is_outside, tested
from genrec_bench.reporting.rendering import render, said
from genrec_bench.reporting.tables import DASH, MARK, pipe
from genrec_bench.reporting.verdicts import NUMBERS, csv_line, p_text
from genrec_bench.results.frame import PASSES
from genrec_bench.results.records import RunRecord

PARTS = ("tokenizer", "semantic_ids_fingerprint", "backbone", "training", "decoding", "negatives", "uses")
MACHINE = ["device", "cpu", "threads"]
CSV_HEADER = ("dataset", "profile", "method", "against", "declared", *NUMBERS, "verdict", "against_seeds", "recall",
              "recall_against", "train_seconds_ratio", "positions_ratio")


@dataclass(frozen=True)
class Rendered:
    """A written comparison. summary: all verdicts on each dataset in a sentence or two; sentences: one a verdict."""

    path: Path
    summary: tuple[str, ...]
    sentences: tuple[str, ...]


def render_comparison(new: Sequence[RunRecord], baselines: Sequence[RunRecord], ranks: Ranks, out: Path, *,
                      missing: Sequence[tuple[str, str]] = (), notes: Sequence[str] = (), rows: Rows = EVERY,
                      num_permutations: int = NUM_PERMUTATIONS, seed: int = 0) -> Rendered:
    """Compare new runs with every stored method on the same data and write `<out>/comparison.md`.

    new, baselines: records; those of one dataset, split, evaluation and profile are compared (a baseline without
    randomness with every profile), on the seeds that both have. ranks: the per-user ranks of a record. missing:
    (label, command) of baselines that have no record yet. notes: what else the reader should know. rows: those
    that carry verdicts. seed: of the permutations and resamples.
    Only methods that the suites declare as ones to stand beside carry verdicts; the others are described. Writes
    `comparison.csv` and `differences.png` and `.svg` beside it; equal records give equal bytes.
    Raises: UserError where there is nothing new.
    """
    if not new:
        raise UserError("no run of the new objective to compare. Run it first.")
    blocks = compared(new, baselines, ranks, num_permutations=num_permutations, seed=seed, rows=rows)
    methods = [_facts(m, pairs) for m, pairs in blocks]
    pairs = [t for _, of in blocks for t in of]
    figure = _figure(methods) or {}
    page = render("comparison", methods=methods, tested=tested(pairs), notes=notes, missing=missing, mark=MARK,
                  drawn=bool(figure), flips=f"{num_permutations:,}", resamples=f"{NUM_RESAMPLES:,}", alpha=ALPHA)
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):  # what an earlier comparison left does not belong to this one
        (out / f"differences.{kind}").unlink(missing_ok=True)
    files = {f"differences.{kind}": content for kind, content in figure.items()}
    files |= {"comparison.csv": csv_text(CSV_HEADER, map(_csv_row, filter(lambda t: t.comparison, pairs))).encode(),
              "comparison.md": f"{page}\n".encode(),
              "comparison.tex": "\n".join(latex.of_page(page, methods[0]["label"], "comparison").values()).encode()}
    for name, content in files.items():
        write_atomically(out / name, content)
    return Rendered(out / "comparison.md",
                    tuple(f"{m['title']}: {said('comparison_words', 'verdict', m, True)}" for m in methods),
                    tuple(said("comparison_words", "sentence", t, m) for m in methods for t in m["declared"]))


def _facts(method: Group, pairs: Sequence[Test]) -> dict[str, Any]:
    """What the templates say of a new method on its data."""
    first, outside = method.records[0], is_outside(method)
    where, declared = method.runs["where"].iloc[0], [t for t in pairs if t.declared]
    described = [t for t in pairs if not t.declared and t.comparison]
    return {"label": method.label, "first": first, "profile": first.profile, "seeds": method.seeds, "where": where,
            "title": f"{method.label} on {where}, {'beside ' * outside}profile {first.profile}", "outside": outside,
            "pairs": pairs, "declared": declared, "tested": tested(pairs), "described": described,
            "of": {word: [t for t in tested(pairs) if t.verdict == word] for word in ("better", "worse", None)},
            "one_user": any(t.comparison.n_users == 1 for t in described), "budget": unequal_budget(first),
            "untested": first.profile in UNTESTED, "table": _table(declared, outside),
            "described_table": _table(described, outside), "difference": _difference, "p_text": p_text}


def _setup(t: Test) -> str:
    """What a generative baseline shares with the new method besides the data."""
    new, other = t.group.records[0], t.against.records[0]
    if other.config.get("baseline"):
        return "not generative"
    if is_outside(t.group):
        return f"backbone {other.config['backbone']['name']}"
    unlike = [p for p in PARTS if len({canonical(r.identity.get(p, r.config.get(p))) for r in (new, other)}) > 1]
    if "backbone" not in unlike:
        return "; ".join(["same backbone", *([f"differs in {', '.join(unlike)}"] if unlike else [])])
    theirs, ours = (r.config["backbone"]["name"] for r in (other, new))
    told = f"backbone ({theirs} instead of {ours})" if theirs != ours else "backbone"
    return f"differs in {', '.join(told if p == 'backbone' else p for p in unlike)}"


def _ratio(t: Test, *columns: str) -> float | None:
    """Median over the new runs by median over the baseline's, of those that were trained."""
    costs = [g.runs[g.runs["epochs"].fillna(1) > 0][list(columns)].astype(float).sum(axis=1)
             for g in (t.group, t.against)]
    new, other = (of[of > 0].median() for of in costs)
    return new / other if new > 0 and other > 0 else None


def _costs(t: Test) -> str:
    seconds, positions = _ratio(t, "train_seconds"), _ratio(t, *PASSES[2:])
    machines = [set(map(tuple, g.runs[MACHINE].astype(str).to_numpy())) for g in (t.group, t.against)]
    time = DASH if seconds is None else f"{seconds:.2f}" + f" {MARK}" * (machines[0] != machines[1])
    return time if positions is None else f"{time} (positions {positions:.2f})"


def _difference(t: Test) -> str:
    low, high = t.comparison.interval
    interval = DASH if t.comparison.n_users == 1 else f"{low:+.4f}, {high:+.4f}"  # nothing to measure a spread by
    return f"{t.comparison.difference:+.4f} [{interval}]"


def _table(tests: Sequence[Test], outside: bool) -> str:
    """A line a pair; of pairs without a verdict no test."""
    name = "baseline" if tests and tests[0].declared else "method"
    lines = []
    for t in tests:
        c, against = t.comparison, " ".join(map(str, t.against.seeds)) if t.against.seeded else DASH
        line = {name.capitalize(): t.against.label, "Setup": _setup(t),
                ("Files / seeds" if outside else "Seeds"):
                DASH if c is None else " ".join(map(str, t.group.seeds)) + f" / {against}" * outside,
                "NDCG@10 new": c and f"{c.mean_a:.4f}", f"NDCG@10 {name}": c and f"{c.mean_b:.4f}",
                "Difference [95% interval]": c and _difference(t)}
        if t.declared:
            line |= {"p (Holm)": c and p_text(t.p_holm).removeprefix("p ").removeprefix("= "),
                     "Paired t over seeds": c and c.paired_t and
                     f"t = {c.paired_t.t:+.2f}, {p_text(c.paired_t.p_value)}, n = {c.paired_t.n}",
                     "d_z": c and f"{c.d_z:+.3f}"}
        line |= {"Recall@10 new": c and f"{t.recall[0]:.4f}", f"Recall@10 {name}": c and f"{t.recall[1]:.4f}"}
        if t.declared:
            line |= {"Training time ratio": c and _costs(t), "Verdict": "no common seed" if c is None else
                     t.verdict or f"none detected (≥ {t.detectable:.4f})"}
        lines.append({title: cell or DASH for title, cell in line.items()})
    return pipe(list(lines[0]), [list(line.values()) for line in lines], numeric_from=3) if lines else ""


def _csv_row(t: Test) -> list[Any]:
    """One pair in the order of CSV_HEADER; what carries no verdict has no p-value either."""
    first = t.group.records[0]
    return csv_line(CSV_HEADER, t, dataset=dataset_title(first), profile=first.profile,
                    declared="yes" if t.declared else "no", against_seeds=" ".join(map(str, t.against.seeds)),
                    recall=t.recall[0], recall_against=t.recall[1], train_seconds_ratio=_ratio(t, "train_seconds"),
                    positions_ratio=_ratio(t, *PASSES[2:]))


def _figure(methods: Sequence[dict[str, Any]]) -> dict[str, bytes] | None:
    """A panel a new method and dataset, a row a verdict: difference and interval; None where there is none."""
    points = [one for m in methods for t in m["tested"] for one in (
        *([point(m["title"], "difference", ZERO, "level", t.against.label, 0.0)] if t is m["tested"][0] else []),
        point(m["title"], "difference", OUTCOMES[t.verdict], "mean", t.against.label, t.comparison.difference,
              t.comparison.interval, note=p_text(t.p_holm)))]
    return Chart("Differences to stored methods, with 95% intervals and p (Holm)", "", points,
                 {"difference": Axis("Difference in NDCG@10, new minus stored")}, LOOKS,
                 shared=False).images(("png", "svg")) if points else None
