"""Rows as released: the schedule, the decayed parameters and the dropout of other codes, and presets that have them."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.batches import TokenisedInstances
from genrec_bench.contracts import EOS, Interactions, SemanticIds
from genrec_bench.core import settings
from genrec_bench.core.errors import UserError
from genrec_bench.core.meter import Meter
from genrec_bench.core.progress import Quiet
from genrec_bench.experiments import suite_files
from genrec_bench.experiments.config import NegativesConfig, RunConfig, TrainingConfig
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.experiments.overrides import parse_overrides
from genrec_bench.objectives.s_dpo import SDpo
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.training.feed import InputFeed
from genrec_bench.training.loop import train
from genrec_bench.training.optimiser import adamw, learning_rate, planned_steps
from genrec_bench.trie import Trie
from tests.test_training import toy_training

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

RELEASED = {"selection": "loss", "accumulation_reduction": "sum", "schedule": "released", "decay_biases": False}


# Schedule

def test_planned_steps_by_hand() -> None:
    """APAO's Office has 38,543 training rows: 302 passes of 128, 37 steps of 8 and one of 6."""
    paper = TrainingConfig()
    released = TrainingConfig(schedule="released")
    assert planned_steps(38543, paper) == 200 * 38 and planned_steps(38543, released) == 200 * 37
    assert planned_steps(1024, paper) == planned_steps(1024, released) == 200  # nothing is left
    assert planned_steps(300, paper) == planned_steps(300, released) == 200  # less than a step


def test_the_released_rate_begins_at_0() -> None:
    """10 steps, peak 1, warm-up 2: 0, 1/2, then the cosine from step 2 over 8 steps, as it is without."""
    chosen = {"learning_rate": 1.0, "warmup_ratio": 0.2}
    rates = [learning_rate(step, 10, TrainingConfig(**chosen, schedule="released")) for step in range(10)]
    assert rates == pytest.approx([0.0, 0.5, *(0.5 * (1 + math.cos(math.pi * n / 8)) for n in range(8))], abs=1e-15)
    assert rates[2:] == [learning_rate(step, 10, TrainingConfig(**chosen)) for step in range(2, 10)]
    # 1 % of 7,400 steps are 74: the last of the warm-up, number 73, has 73/74 of the peak
    office = TrainingConfig(schedule="released")
    assert learning_rate(73, 7400, office) == pytest.approx(5e-4 * 73 / 74)
    assert learning_rate(74, 7400, office) == 5e-4


def test_training_ends_with_the_last_planned_step(toy_interactions: Interactions, tmp_path: Path) -> None:
    """100 rows are 13 passes of 8: 3 steps of 4 passes are planned and 4 made, so that 5 epochs are 3 3/4."""
    losses = []
    for schedule, steps, epochs in (("exact", 20, 5), ("released", 15, 4)):
        folder = tmp_path / schedule
        folder.mkdir()
        _, trained = toy_training(toy_interactions, folder, accumulation=4, epochs=5, valid_every=3, patience=9,
                                  schedule=schedule)
        history = trained.history
        assert (history["steps"], history["epochs"], history["stopped"]) == (steps, epochs, "epochs")
        assert [e["epoch"] for e in history["curve"] if "valid_ndcg@10" in e] == [3, epochs]
        assert history["passes"]["histories_with_gradient"] == (500 if schedule == "exact" else 3 * 100 + 3 * 4 * 8)
        losses.append([e["loss"] for e in history["curve"]])
    assert losses[1][3] == pytest.approx(losses[0][3], rel=0.2), "the mean over the rows that were seen"


def test_a_step_at_rate_0_changes_nothing(toy_interactions: Interactions, tmp_path: Path) -> None:
    models = [toy_training(toy_interactions, tmp_path / schedule, batch_size=100, epochs=1, schedule=schedule)[0]
              for schedule in ("exact", "released") if not (tmp_path / schedule).mkdir()]
    fresh = TigerSettings(width=16, num_layers=1, num_heads=2, head_width=8, feed_forward_width=32, dropout=0.0)
    start = fresh.build(SemanticIds.from_codes(toy_interactions.given_codes).vocab_size, 7)
    same = [all(map(torch.equal, model.parameters(), start.parameters())) for model in models]
    assert same == [False, True]


# Decay

@pytest.mark.parametrize(("backbone", "exempt"), [(TigerSettings(num_layers=2), {
    f"{part}.block.0.layer.0.SelfAttention.relative_attention_bias.weight" for part in ("encoder", "decoder")}),
    (LlamaSettings(num_layers=2), set())])
def test_the_trainer_decays_all_but_norms_and_names_with_bias(backbone: Any, exempt: set[str]) -> None:
    """Written out from transformers 4.51.0, get_decay_parameter_names; T5's and Llama's norms are known by class."""
    model = backbone.build(50, 0)
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.RMSNorm)}
    every = dict(model.named_parameters())
    by_name = {name for name in every if any(word in name.lower() for word in ("bias", "layernorm", "rmsnorm"))}

    def groups(**chosen: Any) -> list[set[str]]:
        optimiser = adamw(model, TrainingConfig(weight_decay=0.01, **chosen))
        assert [group["weight_decay"] for group in optimiser.param_groups] == [0.01, 0.0]
        return [{name for name, p in every.items() if any(p is q for q in group["params"])}
                for group in optimiser.param_groups]

    assert norms and groups(decay_biases=False) == [every.keys() - norms - by_name, norms | by_name]
    assert groups() == [every.keys() - norms, norms]
    assert by_name - norms == exempt


# Dropout

def s_dpo_losses(interactions: Interactions, folder: Path, **chosen: Any) -> tuple[list[float], float]:
    """The losses of two epochs at rate 0 of a network with dropout that is its own reference, and the mean of
    log(1 + N), N of a row's six negatives that are not its target."""
    ids = SemanticIds.from_codes(interactions.given_codes)
    split, trie, objective = LeaveOneOut(train_targets_per_user=2).split(interactions), Trie.from_codes(ids.tokens), \
        SDpo(num_negatives=6)
    model = TigerSettings(width=16, num_layers=1, num_heads=2, head_width=8, feed_forward_width=32,
                          dropout=0.3).build(ids.vocab_size, 7)
    feed = InputFeed(model, TokenisedInstances(split.train, ids, (EOS,), "cpu"), [objective], trie=trie,
                     negatives=NegativesConfig(redraw="never"), reference=copy.deepcopy(model).eval())
    config = TrainingConfig(learning_rate=0.0, epochs=2, batch_size=32, accumulation=1, **chosen)
    folder.mkdir()
    trained = train(model, feed, [(1.0, objective)], config=config, seed=0, folder=folder, about={}, attached={},
                    validate=lambda states: {"valid_ndcg@10": 0.5}, progress=Quiet(), meter=Meter())
    others = (feed.negatives(np.arange(len(split.train))) != trie.id_of_item[split.train.targets][:, None]).sum(axis=1)
    return [entry["loss"] for entry in trained.history["curve"]], float(np.log1p(others).mean())


def test_without_dropout_a_network_equals_its_reference(toy_interactions: Interactions, tmp_path: Path) -> None:
    losses, expected = s_dpo_losses(toy_interactions, tmp_path / "off", dropout=False)
    assert losses == pytest.approx([expected, expected], abs=1e-6) and losses[0] == pytest.approx(losses[1], abs=1e-6)
    dropped, _ = s_dpo_losses(toy_interactions, tmp_path / "on")
    assert min(dropped) > expected + 0.01 and abs(dropped[0] - dropped[1]) > 1e-3


# Presets

def runs(label: str, *pairs: str, profile: str = "paper", dataset: str = "apao_office") -> RunConfig:
    """The run of a row, the last stage where it has two."""
    return expand(Selection("apao", profile, (dataset,), None, (), (0,), parse_overrides(pairs), rows=(label,)))[-1]


def test_a_section_has_presets_in_a_row_and_on_the_command_line(tmp_path: Path) -> None:
    text = (suite_files.FOLDERS["suite"] / "apao.toml").read_text(encoding="utf-8")
    old = 'training = { accumulation_reduction = "sum" }'
    assert text.count(old) == 1

    def row(new: str) -> dict[str, Any]:
        (tmp_path / "apao.toml").write_text(text.replace(old, new), encoding="utf-8")
        suite_files._parsed.cache_clear()
        found = suite_files.load_suite("apao", tmp_path)["row"]
        return next(r for r in found if r.get("label") == "TIGER + cross-entropy, gradients summed")

    assert row('training = { preset = "released", selection = "last_batch_loss" }')["training"] == {
        **RELEASED, "selection": "last_batch_loss"}
    assert row('training = { preset = "paper" }\ndecoding = { preset = "released" }')["decoding"] == {"eos": True}
    with pytest.raises(UserError, match=r"unknown preset 'relesed' in .*row \d+, training. Did you mean 'released'"):
        row('training = { preset = "relesed" }')
    config = runs("TIGER + CE → S-DPO", "training.preset=released", "training.schedule=exact",
                  "second_stage.preset=released", "decoding.preset=released")
    first, changed = config.used("weights"), {k: v for k, v in RELEASED.items() if k != "schedule"}
    assert settings.differing(first.training) == changed
    assert settings.differing(config.training) == {**changed, "dropout": False} and config.decoding.eos
    for section, allowed in (("training", "paper, released"), ("second_stage", "paper, released")):
        with pytest.raises(UserError, match=f"unknown preset 'realeased' in --set, {section}.*'released'.*{allowed}"):
            runs("TIGER + CE → S-DPO", f"{section}.preset=realeased")
    with pytest.raises(UserError, match="unknown setting 'preset'"):
        runs("TIGER + CE → S-DPO", "negatives.preset=released")


@pytest.mark.parametrize(("label", "objectives", "decoding"), [
    ("TIGER + cross-entropy", [{"eos": True}], {"eos": True}),
    ("TIGER + MSL", [{"tau": 2.0, "eos": True}], {"normaliser": "trie"}),
    ("TIGER + APAO-Pointwise", [{"eos": True}, 0.3], {"eos": True}),
    ("TIGER + APAO-Pairwise", [{"eos": True}, 0.2], {"eos": True}),
    ("Llama + cross-entropy", [{"eos": True}], {}),
    ("Llama + APAO-Pointwise", [{"eos": True}, 0.4], {}),
    ("Llama + APAO-Pairwise", [{"eos": True}, 0.4], {})])
def test_rows_as_released(label: str, objectives: list[Any], decoding: dict[str, Any]) -> None:
    """On Office, whose best beta and eta Table 5 prints: beta stays, eta is that of the scripts, 0."""
    config, written = runs(f"{label}, as released"), runs(label)
    last = [o for o in config.objectives if o.objective.name == "apao"]
    selection = {"selection": "last_batch_loss"} if last else {}
    assert settings.differing(config.training) == {**RELEASED, **selection}
    assert settings.differing(config.decoding) == decoding and config.backbone == written.backbone
    assert settings.differing(config.objectives[0].objective) == objectives[0]
    for one, as_written in zip(last, written.objectives[1:], strict=True):
        assert one.weight == as_written.weight == objectives[1] and as_written.objective.eta > 0
        form = {"form": "pairwise"} if "Pairwise" in label else {}
        assert settings.differing(one.objective) == {
            "weights": "released", "eta": 0.0, "divide_by_length": True, "negative_scale": True,
            "released_numerics": True, **form}
    row = {r["label"]: r for r in suite_files.load_suite("apao")["row"] if "label" in r}
    assert row[f"{label}, as released"]["paper_row"] == row[label]["paper_row"]
