"""A new objective against stored baselines: verdicts, numbers, how they were computed, and a forest plot."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genrec_bench import declared
from genrec_bench.analysis.significance import NUM_PERMUTATIONS, NUM_RESAMPLES, Comparison, compare_values, holm
from genrec_bench.contracts import Rankings
from genrec_bench.errors import UserError
from genrec_bench.identity import canonical
from genrec_bench.metrics.base import expected_values
from genrec_bench.records import RunRecord, write_atomically
from genrec_bench.reporting import tables
from genrec_bench.reporting.figures import PALETTE, ROW, broken_label, image_bytes, own_style
from genrec_bench.reporting.load import _own, _shared, _unique, dataset_title

ALPHA = 0.05
K = 10
PARTS = ("tokenizer", "semantic_ids_fingerprint", "backbone", "training", "decoding", "negatives", "first_stage")
MACHINE = ("device", "cpu", "threads")
LOOKS = {"better": (PALETTE[0], "o"), "worse": (PALETTE[3], "s"), None: ("0.35", "D")}
CSV_HEADER = ("dataset", "profile", "new", "baseline", "seeds", "users", "ndcg@10_new", "ndcg@10_baseline",
              "difference", "low", "high", "p_value", "p_holm", "d_z", "minimum_detectable", "recall@10_new",
              "recall@10_baseline", "train_seconds_ratio", "positions_ratio", "verdict")


@dataclass(frozen=True)
class Method:
    """Runs that are equal but for the seed. seeded: False where nothing is random, so that one run says it all."""

    label: str
    runs: Mapping[int, RunRecord]
    seeded: bool

    @property
    def first(self) -> RunRecord:
        """One of its runs, for what all have in common."""
        return self.runs[min(self.runs)]


@dataclass(frozen=True)
class Pair:
    """The new method and one baseline on the seeds that both have; ndcg is None where they have none in common."""

    new: Method
    baseline: Method
    seeds: tuple[int, ...]
    ndcg: Comparison | None = None
    recall: tuple[float, float] = (0.0, 0.0)
    p_holm: float = 1.0

    @property
    def verdict(self) -> str | None:
        """"better", "worse", or None where no difference was detected: test and interval have to agree."""
        low, high = self.ndcg.interval
        if self.p_holm > ALPHA or low <= 0.0 <= high:
            return None
        return "better" if self.ndcg.difference > 0 else "worse"


def render_comparison(new: Sequence[RunRecord], baselines: Sequence[RunRecord],
                      ranks: Callable[[RunRecord], Rankings], out: Path, *, missing: Sequence[tuple[str, str]] = (),
                      num_permutations: int = NUM_PERMUTATIONS, seed: int = 0) -> tuple[Path, list[str]]:
    """Compare new runs with every stored baseline on the same data and write `<out>/comparison.md`.

    new, baselines: records; those of one dataset, split, evaluation and profile are compared (a baseline without
    randomness with every profile), on the seeds that both have. ranks: the per-user ranks of a record. missing:
    (label, command) of baselines that have no record yet. seed: of the permutations and resamples.
    Writes `comparison.csv` and `differences.png` and `.svg` beside it; equal records give equal bytes. Returns the
    path and a sentence a baseline. Raises: UserError where there is nothing new.
    """
    if not new:
        raise UserError("no run of the new objective to compare. Run it first.")
    blocks = [(m, [_compared(p, ranks, num_permutations, seed) for p in _pairs(m, baselines)]) for m in _methods(new)]
    adjusted = iter(holm([p.ndcg.p_value for _, pairs in blocks for p in pairs if p.ndcg]))
    blocks = [(m, [replace(p, p_holm=next(adjusted)) if p.ndcg else p for p in pairs]) for m, pairs in blocks]
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "comparison.csv", tables.csv_text(CSV_HEADER, _csv_rows(blocks)).encode())
    for kind in ("png", "svg"):  # what an earlier comparison left does not belong to this one
        (out / f"differences.{kind}").unlink(missing_ok=True)
    figure = _figure(blocks)
    for kind, content in (figure or {}).items():
        write_atomically(out / f"differences.{kind}", content)
    text = _markdown(blocks, missing, num_permutations, figure is not None)
    write_atomically(out / "comparison.md", text.encode())
    return out / "comparison.md", [_sentence(p) for _, pairs in blocks for p in pairs]


def _methods(records: Sequence[RunRecord]) -> list[Method]:
    """Groups that differ in the seed only, in the order of data and labels, with labels that tell them apart."""
    groups: dict[str, dict[int, RunRecord]] = {}
    for record in sorted({r.run_id: r for r in records}.values(), key=lambda r: (_place(r), r.label, r.run_id)):
        key = canonical([_shared(record), record.profile, _own(record)])
        groups.setdefault(key, {}).setdefault(record.seed, record)
    runs = [dict(sorted(group.items())) for group in groups.values()]
    firsts = [next(iter(group.values())) for group in runs]
    labels: dict[int, str] = {}
    for place in dict.fromkeys(map(_place, firsts)):  # a label has to be unique on its own data only
        inside = [i for i, record in enumerate(firsts) if _place(record) == place]
        labels |= zip(inside, _unique([firsts[i].label for i in inside], [_own(firsts[i]) for i in inside]),
                      strict=True)
    return [Method(labels[i], group, _is_seeded(firsts[i])) for i, group in enumerate(runs)]


def _place(record: RunRecord) -> str:
    return canonical([dataset_title(record), record.profile, _shared(record)])


def _is_seeded(record: RunRecord) -> bool:
    name = (record.config.get("baseline") or {}).get("name")
    return name not in declared.baseline_names() or declared.load_baseline(name)["seeded"]


def _pairs(new: Method, baselines: Sequence[RunRecord]) -> list[Pair]:
    """The new method beside every other that may be compared with it."""
    fitting = [r for r in baselines if canonical(_shared(r)) == canonical(_shared(new.first))
               and canonical(_own(r)) != canonical(_own(new.first))]
    return [Pair(new, m, tuple(s for s in new.runs if s in m.runs or not m.seeded)) for m in _methods(fitting)
            if m.first.profile == new.first.profile or not m.seeded]


def _compared(pair: Pair, ranks: Callable[[RunRecord], Rankings], num_permutations: int, seed: int) -> Pair:
    if not pair.seeds:
        return pair
    baseline = [pair.baseline.runs[s] for s in pair.seeds] if pair.baseline.seeded else [pair.baseline.first]
    lists = [[ranks(r) for r in runs] for runs in ([pair.new.runs[s] for s in pair.seeds], baseline)]
    ndcg, recall = ([np.stack([expected_values(metric, r, K) for r in side]) for side in lists]
                    for metric in ("ndcg", "recall"))
    comparison = compare_values(*ndcg, num_permutations=num_permutations, seed=seed)
    return replace(pair, ndcg=comparison, recall=tuple(float(side.mean()) for side in recall))


def _part(record: RunRecord, name: str) -> Any:
    return record.identity.get(name, record.config.get(name))


def _setup(pair: Pair) -> str:
    """What a generative baseline shares with the new method besides the data."""
    new, other = pair.new.first, pair.baseline.first
    if other.config.get("baseline"):
        return "not generative"
    unlike = [p for p in PARTS if canonical(_part(new, p)) != canonical(_part(other, p))]
    if "backbone" in unlike:
        theirs, ours = (r.config["backbone"]["name"] for r in (other, new))
        unlike[unlike.index("backbone")] = f"backbone ({theirs} instead of {ours})" if theirs != ours else "backbone"
    same = "" if any(p.startswith("backbone") for p in unlike) else "same backbone"
    return "; ".join(p for p in (same, f"differs in {', '.join(unlike)}" if unlike else "") if p)


def _seconds(record: RunRecord) -> float | None:
    """Training time; a first stage counts. None where nothing was trained."""
    seconds = record.timings.get("train_seconds")
    trained = seconds and record.training.get("epochs", 1)
    return seconds + record.timings.get("first_stage_seconds", 0.0) if trained else None


def _positions(record: RunRecord) -> float | None:
    """Positions that the decoder computed in training, with and without gradient; a first stage counts."""
    stages = (record.training, record.training.get("first_stage") or {})
    return sum(v for s in stages for k, v in s.get("passes", {}).items() if k.startswith("positions")) or None


def _ratio(pair: Pair, cost: Callable[[RunRecord], float | None]) -> float | None:
    """Median over the new runs by median over the baseline's."""
    new, other = ([c for s, r in m.runs.items() if (c := cost(r)) and (s in pair.seeds or not m.seeded)]
                  for m in (pair.new, pair.baseline))
    return statistics.median(new) / statistics.median(other) if new and other else None


def _machines(method: Method) -> set[tuple[str, ...]]:
    return {tuple(str(r.provenance.get(k, "")) for k in MACHINE) for r in method.runs.values()}


def _costs(pair: Pair) -> str:
    seconds, positions = _ratio(pair, _seconds), _ratio(pair, _positions)
    elsewhere = f" {tables.MARK}" if _machines(pair.new) != _machines(pair.baseline) else ""
    time = tables.DASH if seconds is None else f"{seconds:.2f}{elsewhere}"
    return time if positions is None else f"{time} (positions {positions:.2f})"


def _sentence(pair: Pair) -> str:
    """The verdict on one baseline."""
    names, where = (pair.new.label, pair.baseline.label), f"{dataset_title(pair.new.first)}, {_seeds(pair)}"
    if pair.ndcg is None:
        return f"{names[0]} was not compared with {names[1]}: they have no seed in common ({where})."
    c = pair.ndcg
    numbers = f"NDCG@10 {c.mean_a:.4f} against {c.mean_b:.4f}, {_difference(c)}, {_p(pair.p_holm)}"
    if pair.verdict is None:
        return f"No difference detected between {names[0]} and {names[1]} ({where}): {numbers}; {_detectable([pair])}."
    return f"{names[0]} is {pair.verdict} than {names[1]} ({where}): {numbers}."


def _detectable(pairs: Sequence[Pair]) -> str:
    """What the data could have shown where nothing was detected: of several pairs, the weakest."""
    size = max(p.ndcg.minimum_detectable for p in pairs)
    if size == 0:
        return "every user has the same value in both"
    return f"this data could have detected a difference of {size:.4f}"


def _difference(c: Comparison) -> str:
    return f"{c.difference:+.4f} [{c.interval[0]:+.4f}, {c.interval[1]:+.4f}]"


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def _seeds(pair: Pair) -> str:
    count = len(pair.seeds)
    text = f"{count} seed{'' if count == 1 else 's'}"
    return text if pair.baseline.seeded else f"{text}, baseline not seeded"


def _title(method: Method) -> str:
    return f"{method.label} on {dataset_title(method.first)}, profile {method.first.profile}"


Blocks = Sequence[tuple[Method, Sequence[Pair]]]


def _csv_rows(blocks: Blocks) -> list[list[Any]]:
    rows = []
    for method, pairs in blocks:
        for pair in (p for p in pairs if p.ndcg):
            c = pair.ndcg
            rows.append([dataset_title(method.first), method.first.profile, method.label, pair.baseline.label,
                         " ".join(map(str, pair.seeds)), c.n_users, c.mean_a, c.mean_b, c.difference, *c.interval,
                         c.p_value, pair.p_holm, c.d_z, c.minimum_detectable, *pair.recall, _ratio(pair, _seconds),
                         _ratio(pair, _positions), pair.verdict or "no difference detected"])
    return rows


def _markdown(blocks: Blocks, missing: Sequence[tuple[str, str]], num_permutations: int, drawn: bool) -> str:
    sections = [f"# {' and '.join(dict.fromkeys(m.label for m, _ in blocks))} against the stored baselines",
                " ".join(_verdict(m, pairs) for m, pairs in blocks)]
    for method, pairs in blocks:
        if pairs:
            sections += [f"## {_title(method)}", "\n".join(f"- {_sentence(p)}" for p in pairs), *_table(pairs)]
    if drawn:
        sections.append("![Differences in NDCG@10 with 95% intervals](differences.png)\n\nDifferences in NDCG@10 with "
                        "95% intervals ([SVG](differences.svg)). Unrounded: [comparison.csv](comparison.csv).")
    sections += ["## How this was computed", _method(blocks, num_permutations)]
    if missing:
        sections += ["## Baselines without a record", "Nothing is known of these yet. What makes them:",
                     "\n".join(f"- {label}: `{command}`" for label, command in missing)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _verdict(method: Method, pairs: Sequence[Pair]) -> str:
    """All verdicts on one dataset in a sentence or two."""
    named = {v: [p.baseline.label for p in pairs if p.ndcg and p.verdict == v] for v in ("better", "worse", None)}
    parts = [f"{v} than {_join(named[v])}" for v in ("better", "worse") if named[v]]
    if named[None]:
        undecided = [p for p in pairs if p.ndcg and p.verdict is None]
        parts.append(f"no difference detected from {_join(named[None])} ({_detectable(undecided)})")
    text = "; ".join(parts) or ("no stored baseline has the same data, split, evaluation and profile" if not pairs else
                                "no seed in common with a stored baseline")
    smoke = " Profile smoke only shows that everything works: these numbers mean nothing."
    return f"**{_title(method)}:** {text}." + smoke * (method.first.profile == "smoke")


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _table(pairs: Sequence[Pair]) -> list[str]:
    header = ["Baseline", "Setup", "Seeds", "NDCG@10 new", "NDCG@10 baseline", "Difference [95% interval]",
              "p (Holm)", "d_z", "Recall@10 new", "Recall@10 baseline", "Training time ratio", "Verdict"]
    rows = []
    for pair in pairs:
        c = pair.ndcg
        numbers = [tables.DASH] * 7 if c is None else [
            f"{c.mean_a:.4f}", f"{c.mean_b:.4f}", _difference(c), _p(pair.p_holm).removeprefix("p ").removeprefix("= "),
            f"{c.d_z:+.3f}", *(f"{value:.4f}" for value in pair.recall)]
        verdict = "no common seed" if c is None else pair.verdict or f"none detected (≥ {c.minimum_detectable:.4f})"
        rows.append([pair.baseline.label, _setup(pair), " ".join(map(str, pair.seeds)) or tables.DASH, *numbers,
                     _costs(pair), verdict])
    notes = [tables.pipe(header, rows, numeric_from=3)]
    if any(tables.MARK in row[-2] for row in rows):
        notes.append(f"{tables.MARK} Measured on another device, processor or number of threads: not a fair ratio.")
    return [*notes, _left_out(pairs)]


def _left_out(pairs: Sequence[Pair]) -> str:
    """Which seeds one side has alone."""
    parts = []
    for pair in pairs:
        extra = [f"{m.label}'s {', '.join(map(str, left))}" for m in (pair.new, pair.baseline)
                 if m.seeded and (left := [s for s in m.runs if s not in pair.seeds])]
        parts += [f"against {pair.baseline.label}: {' and '.join(extra)}"] if extra else []
    return f"Only seeds that both have are compared. Left out {'; '.join(parts)}." if parts else ""


def _method(blocks: Blocks, num_permutations: int) -> str:
    compared = [p for _, pairs in blocks for p in pairs if p.ndcg]
    lines = [f"- Data: {_title(m)}: {m.first.data.get('test', 'unknown number of')} test users, split "
             f"`{m.first.identity.get('split_fingerprint', 'unknown')[:12]}`, seeds {', '.join(map(str, m.runs))}."
             for m, _ in blocks]
    lines += [
        "- Values: NDCG@10 of each user's one test target is the primary metric; a target that shares its semantic ID "
        "or score with others is worth the mean over the places of its group. Recall@10 is shown without a test.",
        f"- Test: two-sided, paired by user: signs of the users' seed-averaged differences are flipped "
        f"{num_permutations:,} times. p is Holm-corrected over all {len(compared)} comparisons of this report.",
        f"- Interval: the middle 95% of {NUM_RESAMPLES:,} means over resampled seeds and users; it is not corrected "
        "for the number of comparisons.",
        f"- Verdict: better or worse where the corrected p is at most {ALPHA} and the interval leaves 0 out; otherwise "
        "no difference detected, which is not the same as equal. The detectable difference (≥) is what a single "
        "two-sided 5% test over these users finds in 80% of cases.",
        "- d_z: mean over standard deviation of the users' differences. Training time ratio: medians over seeds, new "
        "by baseline, with what a first stage took; positions: the same of positions that the decoder computed.",
        "- A baseline that is not seeded has one run, which stands against every seed."]
    return "\n".join([*lines, f"- {_few_seeds(compared)}"])


def _few_seeds(compared: Sequence[Pair]) -> str:
    """What this number of seeds can show."""
    count = min((len(p.seeds) for p in compared), default=0)
    text = ("The test asks whether other users would show the same difference between these trained models; only the "
            "interval asks about other seeds.")
    if count == 1:
        return f"{text} With one seed it cannot: a difference may be that of two lucky or unlucky runs."
    if count < 5:
        return f"{text} With {count or 'no'} seeds it is somewhat too narrow where seeds differ much; take 5 or more."
    return text


def _figure(blocks: Blocks) -> dict[str, bytes] | None:
    """A panel a new method and dataset, a row a baseline: difference and interval; None where nothing was compared."""
    panels = [(m, shown) for m, pairs in blocks if (shown := [p for p in pairs if p.ndcg])]
    if not panels:
        return None
    with own_style():
        heights = [sum(_height(p) for p in pairs) + 0.4 for _, pairs in panels]
        figure = Figure(figsize=(8.6, 0.5 + ROW * sum(heights) + 0.9 * len(panels)), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (method, pairs) in zip(grid, panels, strict=True):
            _forest(axes, pairs)
            axes.set_title(broken_label(_title(method), 90), loc="left")
        grid[-1].set_xlabel("difference in NDCG@10, new minus baseline, with 95% interval")
        figure.supxlabel("blue circle: better; orange square: worse; grey diamond: no difference detected (Holm)",
                         fontsize=8, color="0.35")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        return image_bytes(figure)


def _height(pair: Pair) -> float:
    """Of a row, in ROW: no label meets the next."""
    return max(1.0, 0.42 * (broken_label(pair.baseline.label).count("\n") + 1))


def _forest(axes: Any, pairs: Sequence[Pair]) -> None:
    edges = np.concatenate([[0.0], np.cumsum([_height(p) for p in pairs])])
    places = (edges[:-1] + edges[1:]) / 2
    axes.axvline(0.0, color="0.2", linewidth=1.0)
    for place, pair in zip(places, pairs, strict=True):
        (color, marker), c = LOOKS[pair.verdict], pair.ndcg
        axes.plot(c.interval, [place, place], color=color, linewidth=1.8, solid_capstyle="butt")
        axes.plot([c.difference], [place], color=color, marker=marker, markersize=6)
        axes.annotate(f"{c.difference:+.4f}, {_p(pair.p_holm)}", (1.01, place), fontsize=8, va="center",
                      xycoords=("axes fraction", "data"), annotation_clip=False)
    axes.set_yticks(places, [broken_label(p.baseline.label) for p in pairs])
    axes.set_ylim(edges[-1] + 0.1, -0.1)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.grid(axis="y", visible=False)
