"""What was run, on which data, with which settings, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.core.lazy import pandas
from genrec_bench.experiments.config import RunConfig, from_dict
from genrec_bench.experiments.identity import method_parts
from genrec_bench.reporting.ledger import load_ledger
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.rows import flatten
from genrec_bench.reporting.tables import DASH, number, pipe
from genrec_bench.results.frame import COUNTS
from genrec_bench.splits.order import order_sentences

if TYPE_CHECKING:
    from pandas import DataFrame

VERSIONS = ("python", "torch", "numpy", "recbole", "genrec_bench")
SHARED = ("baseline", "tokenizer", "backbone", "training", "negatives", "decoding")  # what rows may have in common
DATA_HEADER = ("dataset", "profile", "block", *COUNTS.values(), "train_targets_per_user", "max_users")
TOKENIZER_HEADER = ("block", "method", "tokenizer", "levels", "codebook_sizes", "items", "distinct_semantic_ids",
                    "colliding_items", "largest_group", "utilisation", "prefixes", "reconstruction_error")


def rules(block: Block) -> str:
    """The sentences that hold for every method of a block alike."""
    split, evaluation = block.config.get("split", {}), block.config.get("evaluation", {})
    known = split.get("name") in registry.splits.names()  # a record may be of somebody else's plug-in
    rule = registry.splits.build(split).title if known else f"Split {split.get('name', DASH)}"
    parts = [f"{rule}; at most {split.get('max_history', DASH)} items of history."]
    order = next((r.data["order"] for g in block.groups for r in g.records if "order" in r.data), None)
    parts += order_sentences(order) if order else []
    targets, users = split.get("train_targets_per_user", 0), split.get("max_users", 0)
    if targets:
        parts.append(f"Training data thinned: the newest {targets} training targets of each user are kept, "
                     "the same for every method.")
    if users:
        parts.append(f"Only the first {users} users are kept, the same for every method.")
    parts.append("Every method ranks the whole catalogue, the user's own history included; \"history out\" is "
                 f"without it, for every method alike. Lists of {evaluation.get('max_k', DASH)} are scored.")
    return " ".join(parts)


def counts(block: Block) -> str:
    """Users, items and interactions of a block's data."""
    first = block.runs.iloc[0]
    named = {"users": "data_users", "items": "items", "interactions": "interactions"}
    return ", ".join(f"{first[column]:,} {name}" for name, column in named.items() if first[column] is not pandas.NA)


def choices(blocks: Sequence[Block]) -> list[str]:
    """The choices with a setting that concern the objectives of the rows that were run, as `setting = default`."""
    trained = {o for b in blocks for g in b.groups for stage in g.row.stages for o in stage}
    return list(dict.fromkeys(f"{e.setting} = {e.default}" for method in load_ledger() for e in method.entry
                              if e.setting and e.setting.partition(".")[0] in trained and e.readings))


def data_rows(blocks: Sequence[Block]) -> list[list[Any]]:
    """Counts of each block's split, in the order of DATA_HEADER."""
    rows = []
    for block in blocks:
        known = {name: block.runs[name].dropna().tolist() for name in COUNTS}
        distinct, split = sorted(set(known.pop("distinct_semantic_ids"))), block.config.get("split", {})
        rows.append([block.dataset, block.profile, block.name, *(next(iter(of), None) for of in known.values()),
                     " or ".join(map(str, distinct)) or None, split.get("train_targets_per_user", 0),
                     split.get("max_users", 0)])
    return rows


def data_table(blocks: Sequence[Block]) -> str:
    """Users, items, rows, thinning and semantic IDs of each block."""
    rows = []
    for _, _, name, *counts, distinct, targets, users in data_rows(blocks):
        rule = [f"newest {targets} targets a user" if targets else "", f"first {users} users" if users else ""]
        rows.append([name, *(number(c) for c in counts), ", ".join(r for r in rule if r) or "none", distinct or DASH])
    header = ["Data", "Users", "Items", "Interactions", "Train rows", "Valid rows", "Test rows", "Thinning",
              "Distinct semantic IDs"]
    return pipe(header, rows)


def tokenizer_rows(blocks: Sequence[Block]) -> list[list[Any]]:
    """What the tokenizers say of themselves, in the order of TOKENIZER_HEADER; baselines have none."""
    rows = []
    for block in blocks:
        for group in block.groups:
            table = group.records[0].tokenizer
            if table:
                rows.append([block.name, group.label, *(_cell(table.get("name" if k == "tokenizer" else k))
                                                        for k in TOKENIZER_HEADER[2:])])
    return rows


def _cell(value: Any) -> str | None:
    if isinstance(value, (list, tuple)):
        return " / ".join(_cell(v) or "" for v in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return None if value is None else str(value)


def tokenizer_table(blocks: Sequence[Block]) -> str:
    """The tokenizers of all blocks, one line for methods that share one, or "" where nothing was tokenised."""
    header = ["Data", "Method", "Tokenizer", "Levels", "Codebook sizes", "Items", "Distinct IDs", "Items that collide",
              "Largest group", "Share of codes used", "Distinct prefixes", "Reconstruction error"]
    methods: dict[tuple[Any, ...], list[str]] = {}
    for block, method, *facts in tokenizer_rows(blocks):
        methods.setdefault((block, *facts), []).append(method)
    alone = Counter(block for block, *_ in methods)
    rows = [[block, f"all {len(names)} generative rows" if alone[block] == 1 and len(names) > 1 else ", ".join(names),
             *(fact or DASH for fact in facts)] for (block, *facts), names in methods.items()]
    return "\n\n".join([pipe(header, rows, numeric_from=3), *_words(blocks)]) if rows else ""


def _words(blocks: Sequence[Block]) -> list[str]:
    """A sentence for each block about words of item texts that no two items share, where they were counted."""
    told = []
    for block in blocks:
        tables = (r.tokenizer for g in block.groups for r in g.records if "words_in_one_text" in r.tokenizer)
        told += [f"{block.name}: {n} of {m} words occur in one text only."
                 for n, m in dict.fromkeys((t["words_in_one_text"], t["words"]) for t in tables)]
    return told


def settings(block: Block) -> list[tuple[str, str]]:
    """(label, settings that are not the defaults) of each method, after those that all rows of a backbone share."""
    lines = []
    for family, groups in block.families().items():
        parts = [_settings(g) for g in groups]
        shared = {part: {k: v for k, v in parts[0].get(part, {}).items() if all(s.get(part, {}).get(k, ...) == v
                                                                                for s in parts)}
                  if len(groups) > 1 else {} for part in SHARED}
        if any(shared.values()):
            lines.append((f"All {len(groups)} rows of {family}", _written(shared)))
        lines += [(g.label, _written(_without(s, shared))) for g, s in zip(groups, parts, strict=True)]
    return lines


def _settings(group: Group) -> dict[str, dict[str, Any]]:
    """What every part of a method has otherwise than its defaults, flat; objectives are parts of their own."""
    try:
        config = from_dict(group.records[0].config)
    except UserError:  # of a plug-in that is not loaded, or of other code: all that the record says
        return {part: flatten(spec) for part, spec in group.config.items() if part in SHARED and spec}
    parts = _parts(config)
    for used in config.uses:
        takes = " and ".join(u.take for u in config.uses)
        parts |= {"first stage": {"take": takes}}
        parts |= {f"first stage, {name}": part for name, part in _parts(used.run).items()}
    return {name: flatten({k: v for k, v in part.items() if k not in ("version", "source")})
            for name, part in parts.items()}


def _parts(config: RunConfig) -> dict[str, dict[str, Any]]:
    parts = {k: v for k, v in method_parts(config).items() if k in (*SHARED, "objectives")}
    parts |= {f"objective {i}": spec for i, spec in enumerate(parts.pop("objectives", ()), 1)}
    return parts


def _without(settings: Mapping[str, Mapping[str, Any]], shared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What is left beside what is shared; a first stage shares with its last one."""
    known = {part: shared.get(part.removeprefix("first stage, "), {}) for part in settings}
    return {part: {k: v for k, v in values.items() if known[part].get(k, ...) != v}
            for part, values in settings.items()}


def _written(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """`training: epochs = 4; objective 1 `msl`: tau = 2`."""
    texts = []
    for part, values in parts.items():
        text = ", ".join(f"{k} = {_plain(v)}" for k, v in sorted(values.items()) if k != "name")
        name = f" `{values['name']}`" if "name" in values else ""
        if values:
            texts.append(f"{part}{name}{': ' + text if text else ''}")
    return "; ".join(texts) or "all defaults"


def _plain(value: Any) -> str:
    return (" / ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)) or "none"


def machines(runs: DataFrame) -> str:
    """Where runs were made: one row a distinct machine, set of versions and commit. runs: lines of `run_table`."""
    columns = runs[["cpu", "device", "threads", "platform", *VERSIONS]].astype("str").replace("", None)
    changed = runs["dirty"].fillna(False).map({True: " (changed files)", False: ""})
    columns["commit"] = "`" + runs["commit"].replace("", None).str[:10] + "`" + changed
    counts = columns.fillna(DASH).value_counts().sort_index()
    header = ["CPU", "Device", "Threads", "Platform", "Python", "torch", "numpy", "RecBole", "genrec-bench", "Commit",
              "Runs"]
    return pipe(header, [[*row, str(n)] for row, n in counts.items()], numeric_from=10)
