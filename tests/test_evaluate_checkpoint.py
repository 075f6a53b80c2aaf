"""`evaluate --checkpoint`: a trained run scored again, and weights that cannot be."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from genrec_bench.commands import evaluate as command
from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.core.progress import Quiet
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.running.runner import run_one
from genrec_bench.running.workspace import Workspace
from genrec_bench.training import checkpoints


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(w) for w in words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, toy_interactions: Interactions) -> tuple[Path, Path, dict]:
    """Data folder and working folder of a small run on it, and the run's metrics."""
    root = tmp_path_factory.mktemp("finished")
    data = root / "shop"
    write_generative_folder(data, toy_interactions)
    small = {"tiger": {"width": 8, "num_layers": 1, "num_heads": 1, "head_width": 8, "feed_forward_width": 8},
             "training": {"epochs": 1, "batch_size": 32, "accumulation": 1}}
    (config,) = expand(Selection("apao", "smoke", (str(data),), None, (), (0,), small, rows=("TIGER + cross-entropy",)))
    workspace = Workspace(root / "results")
    record = run_one(workspace.prepare(config), workspace, Quiet())
    return data, workspace.folder(record.run_id), record.metrics


def write_generative_folder(folder: Path, interactions: Interactions) -> None:
    folder.mkdir()
    inter = {u: s.tolist() for u, s in zip(interactions.user_ids, interactions.sequences, strict=True)}
    index = {str(i): [f"<{letter}_{c}>" for letter, c in zip("abc", codes, strict=True)]
             for i, codes in enumerate(interactions.given_codes.tolist())}
    for name, values in (("inter", inter), ("index", index)):
        (folder / f"Shop.{name}.json").write_text(json.dumps(values), encoding="utf-8")


def copied(finished: tuple[Path, Path, dict], folder: Path, **changes: Any) -> Path:
    """The working folder with another `about`; a change to None takes the key away."""
    tensors, about = checkpoints.read(finished[1] / "best.safetensors")
    about = {k: v for k, v in {**about, **changes}.items() if v is not None}
    checkpoints.write(folder / "best.safetensors", tensors, about)
    return folder


def test_a_checkpoint_scores_as_its_run_did(finished: tuple[Path, Path, dict], capsys) -> None:
    data, folder, metrics = finished
    assert command.run(arguments("--checkpoint", folder, "--json", "--threads", "1")) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["metrics"] == {k: v for k, v in metrics.items() if not k.startswith("valid_")}
    assert (result["dataset"], result["users"], captured.err) == ("shop", 50, "")


def test_a_checkpoint_of_other_data_is_refused(finished: tuple[Path, Path, dict], tmp_path: Path, capsys,
                                               toy_interactions: Interactions) -> None:
    other = copied(finished, tmp_path, split_fingerprint="0" * 64)
    with pytest.raises(UserError, match="another split of dataset .*: its fingerprint is 0000000000000000"):
        command.run(arguments("--checkpoint", other, "--threads", "1"))
    older = copied(finished, tmp_path, split_fingerprint=None)
    assert command.run(arguments("--checkpoint", older, "--threads", "1")) == 0
    captured = capsys.readouterr()
    assert "does not say which data it was trained on" in captured.err and "shop: 50 test users" in captured.out
    # the same folder with an item less, and a checkpoint that does not say what it was trained on
    fewer = [np.where(s == 29, 0, s) for s in toy_interactions.sequences]
    write_generative_folder(tmp_path / "shop", dataclasses.replace(
        toy_interactions, sequences=tuple(fewer), given_codes=toy_interactions.given_codes[:29]))
    _, about = checkpoints.read(finished[1] / "best.safetensors")
    config = about["config"]
    config["dataset"]["path"] = str(tmp_path / "shop")
    with pytest.raises(UserError, match="trained on 30 items, but dataset .* has 29 here"):
        command.run(arguments("--checkpoint", copied(finished, tmp_path, config=config, split_fingerprint=None)))


def test_weights_that_cannot_be_scored(tmp_path: Path) -> None:
    """RecBole's weights, somebody else's, and a damaged file; none of them is ours to have deleted."""
    path = tmp_path / "best.safetensors"
    messages = []
    for content in (save({"item_embedding.weight": torch.zeros(3, 2)}), save({"weight": torch.zeros(1)}), b"broken"):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            command.run(arguments("--checkpoint", tmp_path))
        messages.append(str(caught.value))
    assert "weights of a RecBole baseline" in messages[0] and "cannot score" in messages[0]
    assert all("not a checkpoint" in message for message in messages[1:])
    assert not [message for message in messages if "elete" in message]


@pytest.mark.parametrize(("words", "message"), [(("--device", "gpu"), "--device takes cpu"),
                                                (("--device", "cuda:99"), "torch sees"),
                                                (("--threads", "0"), "--threads must be at least 1")])
def test_a_wrong_device_is_named(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        command.run(arguments("--checkpoint", tmp_path, *words))


def test_a_checkpoint_whose_ids_go_on_from_each_other_is_refused(finished: tuple[Path, Path, dict],
                                                                 tmp_path: Path) -> None:
    tensors, about = checkpoints.read(finished[1] / "best.safetensors")
    ids = tensors["semantic_ids"]
    ids[7] = torch.cat([ids[4, :2], torch.zeros(1, dtype=ids.dtype)])
    checkpoints.write(tmp_path / "best.safetensors", tensors, about)
    with pytest.raises(UserError, match="cannot be used: .* item number 7 is the beginning of that of"):
        command.run(arguments("--checkpoint", tmp_path, "--threads", "1"))
