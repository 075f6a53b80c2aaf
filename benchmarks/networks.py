"""The networks of the benchmarks: paper-size ones with random weights, and trained ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.corpora import Corpus, Setting
from genrec_bench.api import run_suite
from genrec_bench.backbones import llama_network, tiger_network
from genrec_bench.backbones.base import Backbone
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.core.errors import UserError
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import from_dict
from genrec_bench.running.generative import load_checkpoint
from genrec_bench.running.runner import BEST
from genrec_bench.running.workspace import Workspace

ROW = "TIGER + cross-entropy"
EPOCHS = 4  # of the network that is trained where there is none; a run of the whole profile is taken where it is there


def network(settings: Any, vocab_size: int) -> Backbone:
    """A network in eval mode with random weights (seed 0).

    Llama's are tripled: as initialised, its logits are so small that every list is full of ties.
    """
    model = settings.build(vocab_size, 0).eval()
    if isinstance(settings, LlamaSettings):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(3.0)
    return model


def to_huggingface(model: Backbone) -> Any:
    """The same weights as a model of transformers."""
    return (tiger_network if isinstance(model, tiger_network.Tiger) else llama_network).to_huggingface(model)


def trained(setting: Setting, path: Path) -> tuple[Backbone, Corpus, int]:
    """Network, data and epoch of a checkpoint. Raises: UserError for other data, or a search that is not flat."""
    model, ids, about = load_checkpoint(path, "cpu")
    config = from_dict(about["config"])
    if config.decoding.normaliser != "flat" or config.decoding.temperature != 1.0 or config.decoding.eos:
        raise UserError(f"{path} decodes with another softmax than over the whole vocabulary at temperature 1, or with "
                        "EOS, which this benchmark does not know. Give a network trained with cross-entropy.")
    split = config.split.split(config.dataset.load(setting.data_dir))
    if about.get("split_fingerprint", split.fingerprint) != split.fingerprint:
        raise UserError(f"{path} was trained on another split of {split.interactions.name} than the data here give.")
    return model, Corpus(split.interactions.name, split, ids), about["epoch"]


def default_checkpoint(setting: Setting) -> Path:
    """The weights of "TIGER + cross-entropy" of the quick profile on Office, seed 0; trained where they are not there.

    Below the results, the whole run is taken where it is finished; else one of 4 epochs, which takes about 3 minutes
    on a free core, once.
    Raises: UserError where a finished run has no weights.
    """
    selection = grid.Selection("apao", "quick", ("apao_office",), None, (), (0,), {}, None, (ROW,))
    workspace = Workspace(setting.results, setting.data_dir)
    whole = workspace.prepare(grid.expand(selection)[0], keep=False).run_id
    if workspace.store.find(whole) and (workspace.folder(whole) / BEST).is_file():
        return workspace.folder(whole) / BEST
    print(f"exact: {ROW} on Office, {EPOCHS} epochs: about 3 minutes where it has not been trained yet.",
          file=sys.stderr, flush=True)
    record = run_suite("apao", datasets=["apao_office"], baselines=[], rows=[ROW], seeds=[0], results=setting.results,
                       data_dir=setting.data_dir, training={"epochs": EPOCHS})[0]
    path = workspace.folder(record.run_id) / BEST
    if not path.is_file():
        raise UserError(f"{path} is not there, though its run is finished. Give --checkpoint FILE, or another folder "
                        "as --results.")
    return path
