"""When our numbers may stand beside a paper's, and why they may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.papers import IMPROVEMENT, Paper, Reported

REPORTED_TABLE = "1"
PROFILE = "paper"
TOKENIZER = "given"

# Fact of a paper's protocol -> where the same number stands in a run's settings.
FACTS = {"max_history": "split.max_history", "learning_rate": "training.learning_rate",
         "warmup_ratio": "training.warmup_ratio", "epochs": "training.epochs", "patience": "training.patience",
         "batch_size": "training.batch_size", "accumulation": "training.accumulation",
         "num_beams": "decoding.num_beams", "width": "backbone.width"}
BACKBONE_FACTS = {"tiger": {"tiger_encoder_layers": "backbone.num_layers", "tiger_heads": "backbone.num_heads",
                            "tiger_head_width": "backbone.head_width"},
                  "llama": {"llama_layers": "backbone.num_layers"}}


def why_not(block: Block, paper: Paper) -> str:
    """Why no row of a block can stand beside the paper's, in one line, or "" where some may."""
    split = block.config.get("split", {})
    if block.dataset not in paper.datasets:
        return f"{block.dataset} is not among the paper's datasets"
    if block.profile != PROFILE:
        return f"profile {block.profile}: smaller backbones and fewer epochs than the paper's"
    if split.get("train_targets_per_user") or split.get("max_users"):
        return "the training data are thinned, the paper's are not"
    if block.config.get("evaluation", {}).get("exclude_history"):
        return "the user's history is taken out of the ranking, which the paper does not say it does"
    if not any(g.row.paper_row for g in block.groups):
        return "no row of the paper has been run"
    reasons = {why_not_group(g, paper) for g in block.groups if g.row.paper_row}
    return "" if "" in reasons else "; ".join(sorted(reasons))


def why_not_group(group: Group, paper: Paper) -> str:
    """Why one row's settings are not the paper's, or ""; the block's own reasons come first, see `why_not`."""
    if group.row.paper_row is None:
        return f"the paper prints no row for {group.label}"
    if group.changed:
        return f"{group.label}: {', '.join(sorted(group.changed))} not as the suite's row of the paper states"
    name = (group.config.get("tokenizer") or {}).get("name")
    if name != TOKENIZER:
        return f"{group.label}: semantic IDs from tokenizer {name}, not the paper's"
    facts = {**FACTS, **BACKBONE_FACTS.get(group.config["backbone"]["name"], {})}
    for fact, place in facts.items():
        ours, theirs = _at(group.config, place), paper.protocol.get(fact, {}).get("value")
        if theirs is not None and ours is not None and ours != theirs:
            return f"{group.label}: {place} is {ours}, the paper's {theirs} ({paper.protocol[fact]['source']})"
    return ""


def _at(config: Mapping[str, Any], place: str) -> Any:
    section, key = place.split(".")
    return (config.get(section) or {}).get(key)


def comparable_rows(block: Block, paper: Paper) -> list[tuple[Group, str, Reported]]:
    """(group, metric, printed cell) wherever data and settings are the paper's."""
    if why_not(block, paper):
        return []
    rows = []
    for group in block.groups:
        if why_not_group(group, paper):
            continue
        for metric in paper.metrics(REPORTED_TABLE):
            cell = reported_cell(block.dataset, group, metric, paper)
            if cell is not None:
                rows.append((group, metric, cell))
    return rows


def reported_cell(dataset: str, group: Group, metric: str, paper: Paper) -> Reported | None:
    """The printed cell of a group's row, whatever the settings."""
    backbone, method = group.row.paper_row or ("", IMPROVEMENT)
    return paper.find(table=REPORTED_TABLE, dataset=dataset, backbone=backbone, method=method, metric=metric)


def coverage(blocks: list[Block], paper: Paper) -> tuple[list[list[str]], int, int]:
    """The paper's rows by its datasets: what is there for each, cells reproduced, cells in all."""
    rows, done, total = [], 0, 0
    for backbone, method in paper.rows(REPORTED_TABLE):
        row = [backbone, method]
        for dataset in paper.datasets:
            total += 1
            groups = [(b, g) for b in blocks if b.dataset == dataset for g in b.groups
                      if g.row.paper_row == (backbone, method)]
            if any(not why_not(b, paper) and not why_not_group(g, paper) for b, g in groups):
                done += 1
                row.append("reproduced")
            else:
                row.append("other settings" if groups else "no record")
        rows.append(row)
    return rows, done, total
