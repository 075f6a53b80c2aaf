"""A new method against stored ones: verdicts, numbers, how they were computed, and a forest plot."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec_bench.analysis.significance import ALPHA, NUM_PERMUTATIONS, NUM_RESAMPLES, Comparison
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical, write_atomically
from genrec_bench.reporting import tables
from genrec_bench.reporting.families import UNTESTED
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.tested import LOOKS, OUTCOMES, ZERO
from genrec_bench.reporting.matching import EVERY, Rows, dataset_title, unequal_budget
from genrec_bench.reporting.pairs import Blocks, Method, Pair, Ranks, compared, described, tested
from genrec_bench.results.records import RunRecord

PARTS = ("tokenizer", "semantic_ids_fingerprint", "backbone", "training", "decoding", "negatives", "uses")
MACHINE = ("device", "cpu", "threads")
CSV_HEADER = ("dataset", "profile", "new", "baseline", "seeds", "users", "ndcg@10_new", "ndcg@10_baseline",
              "difference", "low", "high", "p_value", "p_holm", "d_z", "minimum_detectable", "detectable",
              "recall@10_new", "recall@10_baseline", "train_seconds_ratio", "positions_ratio", "verdict", "declared",
              "baseline_seeds", "t", "t_p_value", "t_low", "t_high")


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
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "comparison.csv", tables.csv_text(CSV_HEADER, _csv_rows(blocks)).encode())
    for kind in ("png", "svg"):  # what an earlier comparison left does not belong to this one
        (out / f"differences.{kind}").unlink(missing_ok=True)
    figure = _figure(blocks)
    for kind, content in (figure or {}).items():
        write_atomically(out / f"differences.{kind}", content)
    text = _markdown(blocks, missing, notes, num_permutations, figure is not None)
    write_atomically(out / "comparison.md", text.encode())
    return Rendered(out / "comparison.md",
                    tuple(f"{_title(m)}: {_verdict(m, pairs, brief=True)}" for m, pairs in blocks),
                    tuple(_sentence(p) for _, pairs in blocks for p in pairs if p.declared))


def _part(record: RunRecord, name: str) -> Any:
    return record.identity.get(name, record.config.get(name))


def _setup(pair: Pair) -> str:
    """What a generative baseline shares with the new method besides the data."""
    new, other = pair.new.first, pair.baseline.first
    if other.config.get("baseline"):
        return "not generative"
    if pair.new.outside:
        return f"backbone {other.config['backbone']['name']}"
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
    new, other = ([c for s in seeds if (c := cost(m.runs[s]))]
                  for m, seeds in ((pair.new, pair.seeds), (pair.baseline, pair.against)))
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
    names, where = (pair.new.label, pair.baseline.label), f"{pair.new.where}, {_seeds(pair)}"
    if pair.comparison is None:
        return f"{names[0]} was not compared with {names[1]}: they have no seed in common ({where})."
    c = pair.comparison
    numbers = f"NDCG@10 {c.mean_a:.4f} against {c.mean_b:.4f}, {_difference(c)}, {_p(pair.p_holm)}"
    if pair.verdict is None:
        return f"No difference detected between {names[0]} and {names[1]} ({where}): {numbers}; {_detectable([pair])}."
    return f"{names[0]} is {pair.verdict} than {names[1]} ({where}): {numbers}."


def _detectable(pairs: Sequence[Pair]) -> str:
    """What the data could have shown where nothing was detected: of several pairs, the weakest."""
    size = max(p.detectable for p in pairs)
    if size == 0:
        return "every user has the same value in both"
    return f"a difference of {size:.4f} would have got a verdict in about 4 of 5 cases"


def _difference(c: Comparison) -> str:
    if c.n_users == 1:  # nothing to measure its spread by
        return f"{c.difference:+.4f} [{tables.DASH}]"
    return f"{c.difference:+.4f} [{c.interval[0]:+.4f}, {c.interval[1]:+.4f}]"


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def _seeds(pair: Pair) -> str:
    text = _count(pair.seeds, "file" if pair.new.outside else "seed")
    if not pair.baseline.seeded:
        return f"{text}, baseline not seeded"
    return f"{text}, {_count(pair.against, 'seed')} of the baseline" if pair.new.outside else text


def _count(numbers: Sequence[int], what: str) -> str:
    return f"{len(numbers)} {what}{'' if len(numbers) == 1 else 's'}"


def _title(method: Method) -> str:
    return f"{method.label} on {method.where}, {'beside ' * method.outside}profile {method.first.profile}"


def _csv_rows(blocks: Blocks) -> list[list[Any]]:
    """What carries no verdict has no p-value either."""
    rows = []
    for method, pairs in blocks:
        for pair in (p for p in pairs if p.comparison):
            c, t = pair.comparison, pair.comparison.paired_t if pair.declared else None
            p_values = (c.p_value, pair.p_holm) if pair.declared else (None, None)
            verdict = (pair.verdict or "no difference detected") if pair.declared else None
            size = pair.detectable if pair.declared else None
            rows.append([dataset_title(method.first), method.first.profile, method.label, pair.baseline.label,
                         " ".join(map(str, pair.seeds)), c.n_users, c.mean_a, c.mean_b, c.difference, *c.interval,
                         *p_values, *((c.d_z, c.minimum_detectable) if c.n_users > 1 else (None, None)), size,
                         *pair.recall,
                         _ratio(pair, _seconds), _ratio(pair, _positions), verdict, "yes" if pair.declared else "no",
                         " ".join(map(str, pair.against)), *((t.t, t.p_value, *t.interval) if t else [None] * 4)])
    return rows


def _markdown(blocks: Blocks, missing: Sequence[tuple[str, str]], notes: Sequence[str], num_permutations: int,
              drawn: bool) -> str:
    sections = [f"# {' and '.join(dict.fromkeys(m.label for m, _ in blocks))} against the stored baselines",
                " ".join(f"**{_title(m)}:** {_verdict(m, pairs)}" for m, pairs in blocks)]
    for method, pairs in blocks:
        shown = [p for p in pairs if p.declared]
        if shown:
            sections += [f"## {_title(method)}", "\n".join(f"- {_sentence(p)}" for p in shown), *_table(shown)]
    if drawn:
        sections.append("![Differences in NDCG@10 with 95% intervals](differences.png)\n\nDifferences in NDCG@10 with "
                        "95% intervals ([SVG](differences.svg)). Unrounded: [comparison.csv](comparison.csv).")
    for method, pairs in blocks:
        if others := described(pairs):
            which = "Every stored method, for one test user allows no test" if _one_user(others) else \
                f"Every stored method but {_standing(method)}"
            sections += [f"## Described only: {_title(method)}", f"{which}: differences without a test.",
                         *_described(others)]
    sections += ["## How this was computed", _method(blocks, notes, num_permutations)]
    if missing:
        sections += ["## Baselines without a record", "Nothing is known of these yet. What makes them:",
                     "\n".join(f"- {label}: `{command}`" for label, command in missing)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _standing(method: Method) -> str:
    """The methods that carry verdicts beside this one."""
    if method.outside:
        return "the suites' baselines and each backbone's plain cross-entropy, trained in one stage"
    return "the suites' baselines and their rows outside the grid `full`, on the new method's backbone"


def _verdict(method: Method, pairs: Sequence[Pair], *, brief: bool = False) -> str:
    """All verdicts on one dataset in a sentence or two. brief: what has none is counted, not named."""
    named = {v: [p.baseline.label for p in tested(pairs) if p.verdict == v] for v in ("better", "worse", None)}
    parts = [f"{v} than {_join(named[v])}" for v in ("better", "worse") if named[v]]
    if named[None]:
        undecided = [p for p in tested(pairs) if p.verdict is None]
        which = f"{len(undecided)} of {len(tested(pairs))}" if brief else _join(named[None])
        parts.append(f"no difference detected from {which} ({_detectable(undecided)})")
    if apart := [p.baseline.label for p in pairs if p.declared and not p.comparison]:
        parts.append(f"no seed in common with {_join(apart)}")
    budget = unequal_budget(method.first)
    if parts and budget:
        parts.append(f"no verdict on baselines, unequal budget: {budget}")
    nothing = ("no stored baseline has the same data, split, evaluation and profile" if not pairs else
               "no verdict, for one test user allows no test" if _one_user(described(pairs)) else
               f"no verdict, unequal budget: {budget}" if budget else
               "no verdict: no row of a suite has a record for this profile and backbone yet"
               if described(pairs) else "no seed in common with a stored baseline")
    profile = method.first.profile
    untested = f" Profile {profile} only shows that everything works: these numbers mean nothing."
    return f"{'; '.join(parts) or nothing}." + untested * (profile in UNTESTED)


def _one_user(pairs: Sequence[Pair]) -> bool:
    """Whether there is but one test user, whose difference has nothing to be measured by."""
    return any(p.comparison.n_users == 1 for p in pairs)


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _table(pairs: Sequence[Pair]) -> list[str]:
    header = ["Baseline", "Setup", _paired_header(pairs), "NDCG@10 new", "NDCG@10 baseline",
              "Difference [95% interval]", "p (Holm)", "Paired t over seeds", "d_z", "Recall@10 new",
              "Recall@10 baseline", "Training time ratio", "Verdict"]
    rows = []
    for pair in pairs:
        c = pair.comparison
        numbers = [tables.DASH] * 8 if c is None else [
            f"{c.mean_a:.4f}", f"{c.mean_b:.4f}", _difference(c), _p(pair.p_holm).removeprefix("p ").removeprefix("= "),
            _paired_t(c), f"{c.d_z:+.3f}", *(f"{value:.4f}" for value in pair.recall)]
        verdict = "no common seed" if c is None else pair.verdict or f"none detected (≥ {pair.detectable:.4f})"
        rows.append([pair.baseline.label, _setup(pair), _paired_cell(pair), *numbers, _costs(pair), verdict])
    notes = [tables.pipe(header, rows, numeric_from=3)]
    if any(tables.MARK in row[-2] for row in rows):
        notes.append(f"{tables.MARK} Measured on another device, processor or number of threads: not a fair ratio.")
    return [*notes, _left_out(pairs)]


def _described(pairs: Sequence[Pair]) -> list[str]:
    header = ["Method", "Setup", _paired_header(pairs), "NDCG@10 new", "NDCG@10 method", "Difference [95% interval]",
              "Recall@10 new", "Recall@10 method"]
    rows = [[p.baseline.label, _setup(p), _paired_cell(p), f"{p.comparison.mean_a:.4f}", f"{p.comparison.mean_b:.4f}",
             _difference(p.comparison), *(f"{value:.4f}" for value in p.recall)] for p in pairs]
    return [tables.pipe(header, rows, numeric_from=3), _left_out(pairs)]


def _paired_header(pairs: Sequence[Pair]) -> str:
    return "Files / seeds" if pairs[0].new.outside else "Seeds"


def _paired_cell(pair: Pair) -> str:
    """Which runs are paired, in order."""
    ours, theirs = (" ".join(map(str, numbers)) or tables.DASH for numbers in (pair.seeds, pair.against))
    return f"{ours} / {theirs if pair.baseline.seeded else tables.DASH}" if pair.new.outside else ours


def _paired_t(c: Comparison) -> str:
    t = c.paired_t
    return tables.DASH if t is None else f"t = {t.t:+.2f}, {_p(t.p_value)}, n = {t.n}"


def _left_out(pairs: Sequence[Pair]) -> str:
    """Which runs one side has alone."""
    parts = []
    for pair in pairs:
        extra = [f"{m.label}'s {', '.join(map(str, left))}"
                 for m, used in ((pair.new, pair.seeds), (pair.baseline, pair.against))
                 if m.seeded and (left := [s for s in m.runs if s not in used])]
        parts += [f"against {pair.baseline.label}: {' and '.join(extra)}"] if extra else []
    rule = "As many runs of one side as of the other" if pairs[0].new.outside else "Only seeds that both have"
    return f"{rule} are compared. Left out {'; '.join(parts)}." if parts else ""


def _method(blocks: Blocks, notes: Sequence[str], num_permutations: int) -> str:
    compared = tested(p for _, pairs in blocks for p in pairs)
    lines = [f"- Data: {_title(m)}: {m.first.data.get('test', 'unknown number of')} test rows, split "
             f"`{m.first.identity.get('split_fingerprint', 'unknown')[:12]}`, {'files' if m.outside else 'seeds'} "
             f"{', '.join(map(str, m.runs))}." for m, _ in blocks]
    lines += [f"- {note}" for note in notes]
    lines.append("- Values: NDCG@10 of each user's test target (the mean over them of a user with several) is the "
                 "primary metric; a target that shares its semantic ID or score with others is worth the mean over the "
                 "places of its group. Recall@10 is shown without a test.")
    interval = f"- Interval: the middle 95% of {NUM_RESAMPLES:,} means over resampled seeds and users"
    if not compared:
        return "\n".join([*lines, f"{interval}. Nothing was tested."])
    lines += [
        f"- Verdicts are for {_join(list(dict.fromkeys(_standing(m) for m, _ in blocks)))}. They are one family. Every "
        "other stored method, such as a variant or a setting of a sweep, is described: difference and interval, no "
        "test.",
        f"- Test: two-sided, paired by user: signs of the users' seed-averaged differences are flipped "
        f"{num_permutations:,} times. p is Holm-corrected over all {len(compared)} comparisons of the family.",
        f"{interval}; it is not corrected for the number of comparisons.",
        f"- Verdict: better or worse where the corrected p is at most {ALPHA} and the interval leaves 0 out; otherwise "
        "no difference detected, which is not the same as equal. The detectable difference (≥) is the true difference "
        f"that gets a verdict among these {len(compared)} in about 4 of 5 cases, by the normal approximation; "
        "`minimum_detectable` of the CSV file is that of a single uncorrected test over users.",
        "- Paired t over seeds: of the seeds' mean differences, n seeds; it asks about other seeds on these users, is "
        "not corrected, and is no part of the verdict: with few seeds it finds large differences only.",
        "- d_z: mean over standard deviation of the users' differences. Training time ratio: medians over seeds, new "
        "by baseline, with what a first stage took; positions: the same of positions that the decoder computed.",
        "- A baseline that is not seeded has one run, which stands against every seed."]
    return "\n".join([*lines, f"- {_few_seeds(compared)}"])


def _few_seeds(compared: Sequence[Pair]) -> str:
    """What this number of seeds can show."""
    count = min(len(p.seeds) for p in compared)
    text = ("The test asks whether other users would show the same difference between these trained models; only the "
            "interval asks about other seeds.")
    if count == 1 and compared[0].new.outside:
        return f"{text} Of one file it cannot say how another seed of its method would do."
    if count == 1:
        return f"{text} With one seed it cannot: a difference may be that of two lucky or unlucky runs."
    if count < 5:
        return f"{text} With {count} seeds it is somewhat too narrow where seeds differ much; take 5 or more."
    return text


def _figure(blocks: Blocks) -> dict[str, bytes] | None:
    """A panel a new method and dataset, a row a verdict: difference and interval; None where there is none."""
    points = []
    for method, pairs in blocks:
        panel = _title(method)
        for turn, pair in enumerate(tested(pairs)):
            at, c = pair.baseline.label, pair.comparison
            if turn == 0:
                points.append(point(panel, "difference", ZERO, "level", at, 0.0))
            points.append(point(panel, "difference", OUTCOMES[pair.verdict], "mean", at, c.difference, c.interval,
                                note=_p(pair.p_holm)))
    if not points:
        return None
    return Chart("Differences to stored methods, with 95% intervals and p (Holm)", "", points,
                 {"difference": Axis("Difference in NDCG@10, new minus stored")}, LOOKS,
                 shared=False).images(("png", "svg"))
