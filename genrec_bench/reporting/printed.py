"""When our numbers may stand beside a paper's, and why they may not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genrec_bench.core.files import canonical
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.papers import Paper, Reported
from genrec_bench.reporting.rows import Row, Suite, effective, flatten

PROFILE = "paper"
PROFILES = (PROFILE, "quick")  # which runs stand in a printed table, the first that there are; smoke never
TOKENIZER = "given"

# Every setting of a run counts, as `--set` spells it: what the suite's row states, what a fact of the paper's protocol
# states (here), and what the paper's file has under `settings`, where the paper is silent. A setting that none of them
# has makes a run not comparable, so that one which comes later cannot be forgotten.
FACTS = {"split.max_history": "max_history", "decoding.num_beams": "num_beams",
         **{f"training.{name}": name for name in ("learning_rate", "warmup_ratio", "epochs", "patience", "batch_size",
                                                  "accumulation")},
         **{f"{name}.width": "width" for name in ("tiger", "llama")}, "llama.num_layers": "llama_layers",
         "tiger.num_layers": "tiger_encoder_layers", "tiger.num_heads": "tiger_heads",
         "tiger.head_width": "tiger_head_width",
         **{f"{name}.num_negatives": "num_negatives" for name in ("apao", "dmpo", "s_dpo")}}
# How a pass is cut into parts: the numbers are those of another order of adding up.
NO_MATTER = ("decoding.batch_size", "decoding.memory_gib", "training.memory_gib")
NO_SETTING = ("label", "profile", "seed")  # parts of a run's configuration


def why_not(block: Block, paper: Paper) -> str:
    """Why no row of a block can stand beside the paper's, in one line, or "" where some may."""
    if reason := _why_not_data(block, paper):
        return reason
    if not any(g.row.paper_row for g in block.groups):
        return "no row of the paper has been run"
    reasons = {why_not_group(g, paper) for g in block.groups if g.row.paper_row}
    return "" if "" in reasons else "; ".join(sorted(reasons))


def _why_not_data(block: Block, paper: Paper) -> str:
    """Why what all rows of a block have in common is not the paper's, or ""."""
    split = block.config.get("split", {})
    if block.dataset not in paper.datasets:
        return f"{block.dataset} is not among the paper's datasets"
    if block.profile != PROFILE:
        return f"profile {block.profile}: smaller backbones and fewer epochs than the paper's"
    if split.get("train_targets_per_user") or split.get("max_users"):
        return "the training data are thinned, the paper's are not"
    return ""


def why_not_group(group: Group, paper: Paper) -> str:
    """Why one row's settings are not the paper's, or ""; the block's own reasons come first, see `why_not`."""
    if group.row.paper_row is None:
        return f"the paper prints no row for {group.label}"
    name = (group.config.get("tokenizer") or {}).get("name")
    if name != TOKENIZER:
        return f"{group.label}: semantic IDs from tokenizer {name}, not the paper's"
    settings, wanted = list(_settings(group.config)), effective(group.row, group.config["dataset"]["name"])
    for place, spelled, value in settings:  # rows that `--set` changes
        if place in wanted and canonical(value) != canonical(wanted[place]):
            return f"{group.label}: {spelled} is {value}, {wanted[place]} in the suite's row"
    found = [(spelled, value) for place, spelled, value in settings if place not in wanted]
    for spelled, value in sorted(found, key=lambda one: one[0] not in FACTS):
        if why := _why_not_value(spelled, value, paper):
            return f"{group.label}: {spelled} is {value}, {why}"
    return ""


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(place, spelling in `--set`, value) of every setting of a run but its seed; of names only the split's."""
    flat = flatten({part: value for part, value in config.items() if part not in NO_SETTING})
    for place, value in flat.items():
        part, _, key = place.rpartition(".")
        owner = part if part == "split" else flat.get(f"{part}.name", part.rpartition(".")[2])
        if owner == "training" and part == "training" and (config.get("first_stage") or {}).get("continues", False):
            owner = "second_stage"
        if (key != "name" or part == "split") and place != "first_stage.negatives":  # absent: a stage that draws none
            yield place, f"{owner}.{key}", value


def _why_not_value(spelled: str, value: Any, paper: Paper) -> str:
    """Why a setting is not the paper's, or "". What holds for training holds for a second stage as well."""
    section, _, key = spelled.replace("second_stage.", "training.").rpartition(".")
    name = f"{section}.{key}"
    if name in NO_MATTER:
        return ""
    if fact := paper.protocol.get(FACTS.get(name, "")):
        return "" if canonical(value) == canonical(fact["value"]) else f"the paper's {fact['value']} ({fact['source']})"
    if key not in paper.settings.get(section, {}):
        return f"and no table of papers/{paper.key}.toml says what it has to be"
    wanted = paper.settings[section][key]
    return "" if canonical(value) == canonical(wanted) else f"{wanted} where the paper's numbers are to be reproduced"


def comparable_rows(block: Block, paper: Paper) -> list[tuple[Group, str, Reported]]:
    """(group, metric, printed cell) wherever data and settings are the paper's; rows may share a printed one."""
    if why_not(block, paper):
        return []
    rows = []
    for group in block.groups:
        if why_not_group(group, paper):
            continue
        for metric in paper.metrics(group.row.table):
            cell = reported_cell(block.dataset, group.row, metric, paper)
            if cell is not None:
                rows.append((group, metric, cell))
    return rows


def reported_cell(dataset: str, row: Row, metric: str, paper: Paper) -> Reported | None:
    """The printed cell of a row, whatever the settings."""
    if row.paper_row is None:
        return None
    backbone, method = row.paper_row
    return paper.find(table=row.table, dataset=dataset, backbone=backbone, method=method, metric=metric)


def printed_gain(dataset: str, row: Row, against: Row, metric: str, paper: Paper) -> float | None:
    """The gain of one row over another as a part of the other's value, from two cells of one table; None without one.
    """
    for table in dict.fromkeys((row.table, against.table)) if row.paper_row and against.paper_row else ():
        ours, theirs = (paper.cell(table=table, dataset=dataset, backbone=backbone, method=method, metric=metric)
                        for backbone, method in (row.paper_row, against.paper_row))
        if ours is not None and theirs:
            return ours / theirs - 1.0
    return None


@dataclass(frozen=True)
class Standing:
    """The row of ours that is compared with a printed one.

    why_not: why it cannot be compared, or "". others: labels of our rows that would stand for the same one.
    """

    block: Block
    group: Group
    why_not: str
    others: tuple[str, ...] = ()


def standings(blocks: Sequence[Block], paper: Paper, dataset: str,
              pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], Standing]:
    """Our row for each (backbone, method) on the paper's dataset, as far as they have been run.

    All are of one block, because methods compare only there: the first with a comparable row, else the first of profile
    paper, then quick, then others; never smoke. Of several rows for one the first that can be compared, whole rows
    before incomplete ones.
    """
    usable = [b for b in blocks if paper.datasets.get(b.dataset) == dataset and b.profile != "smoke"]
    found = [_standings(block, paper, pairs) for block in sorted(usable, key=_rank)]
    return min((f for f in found if f), key=lambda f: all(s.why_not for s in f.values()), default={})


def _rank(block: Block) -> int:
    return PROFILES.index(block.profile) if block.profile in PROFILES else len(PROFILES)


def _standings(block: Block, paper: Paper, pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], Standing]:
    result = {}
    shared = _why_not_data(block, paper)
    for pair in pairs:
        rows = [Standing(block, g, shared or why_not_group(g, paper)) for g in block.groups if g.row.paper_row == pair]
        if rows:
            first = min(rows, key=lambda s: (bool(s.why_not), bool(block.missing(s.group))))
            result[pair] = Standing(block, first.group, first.why_not,
                                    tuple(s.group.label for s in rows if s is not first))
    return result


def tables_of(rows: Sequence[Row]) -> list[str]:
    """The tables of the paper that some rows stand in, in order."""
    return sorted({row.table for row in rows if row.paper_row})


def coverage(suite: Suite, blocks: list[Block], paper: Paper) -> tuple[list[list[str]], int, int]:
    """The paper's rows by its datasets, a line for each of our rows that stands for one: what is there.

    Returns the lines (table, backbone, method, our row, then datasets), printed results that some row of ours
    reproduces, and printed results in all. A row that a later table repeats counts once.
    """
    found: dict[tuple[str, str | None], list[bool]] = {}
    for block in blocks:
        for group in block.groups:
            reproduced = not why_not(block, paper) and not why_not_group(group, paper)
            found.setdefault((block.dataset, group.row.label), []).append(reproduced)
    lines, done, total = [], 0, 0
    for table, backbone, method in _printed_rows(suite, paper):
        ours = [row for row in suite.rows if row.paper_row == (backbone, method) and row.label]
        printed = [d for d, theirs in paper.datasets.items() if any(
            (c.table, c.dataset, c.backbone, c.method) == (table, theirs, backbone, method) for c in paper.reported)]
        total += len(printed)
        done += sum(any(any(found.get((d, row.label), ())) for row in ours) for d in printed)
        for label in [row.label for row in ours] or ["–"]:
            states = [_state(found.get((d, label), ())) if d in printed else "–" for d in paper.datasets]
            lines.append([table, backbone, method, label, *states])
    return lines, done, total


def _printed_rows(suite: Suite, paper: Paper) -> list[tuple[str, str, str]]:
    """(table, backbone, method) of the tables that the suite's rows stand in, each method from its first table."""
    first: dict[tuple[str, str], str] = {}
    for table in tables_of(suite.rows):
        for pair in paper.rows(table):
            first.setdefault(pair, table)
    return [(table, *pair) for pair, table in first.items()]


def _state(found: Sequence[bool]) -> str:
    return "reproduced" if any(found) else "other settings" if found else "no record"
