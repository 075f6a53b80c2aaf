"""Checkpoints: one safetensors file that carries its state as JSON, written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from genrec_bench.core.errors import UserError
from genrec_bench.core.files import write_atomically
from genrec_bench.core.provenance import device_name


def write(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON-able state into one file, so that they can never belong to different epochs."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(plain, metadata={"state": json.dumps(state, sort_keys=True)}))


def read(path: Path, remedy: str = "Delete it to train from the start.") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and state of a checkpoint. Raises: UserError, closing with `remedy`, for a damaged file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = json.loads(file.metadata()["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state
    except (OSError, SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a checkpoint ({error}). {remedy}") from None


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint without its tensors; empty for a file that is none."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return json.loads((file.metadata() or {}).get("state", "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError):
        return {}


def stateless_names(path: Path) -> set[str]:
    """The names of the tensors in a safetensors file that some other program wrote; empty for a checkpoint of ours.

    Also empty for a file that cannot be read, which is `read`'s to report.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return set() if "state" in (file.metadata() or {}) else set(file.keys())
    except (OSError, SafetensorError):
        return set()


def named(group: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `<group>/<name>`."""
    return {f"{group}/{name}": tensor for name, tensor in tensors.items()}


def unnamed(group: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one group under their own names."""
    start = f"{group}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def numbered(group: str, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Several dicts of tensors under `<group>/<number>/<name>`."""
    return {name: tensor for i, part in enumerate(parts) for name, tensor in named(f"{group}/{i}", part).items()}


def unnumbered(group: str, tensors: dict[str, Tensor], count: int, device: str) -> list[dict[str, Tensor]]:
    """What `numbered` was given, on a device."""
    return [{name: tensor.to(device) for name, tensor in unnamed(f"{group}/{i}", tensors).items()}
            for i in range(count)]


def training_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and optimiser moments under names that `load_training` reads back."""
    tensors = named("model", model.state_dict())
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{number}/{name}": value for name, value in moments.items()}
    return tensors


def load_training(tensors: dict[str, Tensor], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put what `training_tensors` gathered back in place."""
    model.load_state_dict(unnamed("model", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser/"):
            _, number, key = name.split("/")
            moments.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def place(device: Any) -> dict[str, Any]:
    """Where training computes: numbers are equal only where this is."""
    return {"device": device_name(str(device)), "threads": torch.get_num_threads()}


def check_place(state: dict[str, Any], here: dict[str, Any], folder: Path) -> None:
    """Refuse to go on elsewhere than a state was made; an older one does not say where, and may go on.

    Raises: UserError.
    """
    other = {name: state[name] for name, value in here.items() if state.get(name, value) != value}
    if other:
        began = ", ".join(f"{name}={value}" for name, value in other.items())
        options = " ".join(f"--{name} {str(value).partition(' ')[0]}" for name, value in other.items())
        raise UserError(f"run {folder.name} was begun with {began}; go on with {options}, or delete {folder} to start "
                        "again.")
