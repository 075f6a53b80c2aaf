"""Where tensors live: what CUDA needs before it starts, copies that nobody waits for, and autocast where it is on."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from genrec_bench.core.errors import UserError
from genrec_bench.core.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")  # the values with which cuBLAS gives the same bits every time; the first is ours


def is_cuda(device: str | torch.device) -> bool:
    """Whether a device such as "cuda:1" is a GPU."""
    return str(device).partition(":")[0] == "cuda"


def before_cuda() -> None:
    """Set what deterministic matrix products need, which cuBLAS reads when CUDA starts in a process.

    Called before anything of CUDA is used; processes that are started later inherit it. Raises: UserError where it is
    too late, and where the user has set a value that is not deterministic.
    """
    value = os.environ.get(WORKSPACE)
    if value in WORKSPACES:
        return
    remedy = f"Before you start Python, run: export {WORKSPACE}={WORKSPACES[0]}"
    if value is not None:
        raise UserError(f"{WORKSPACE} is {value!r}, with which CUDA gives other bits every time; allowed are "
                        f"{' and '.join(WORKSPACES)}. {remedy}")
    if torch.cuda.is_initialized():
        raise UserError(f"CUDA is already in use in this process and {WORKSPACE} was not set, so that matrix products "
                        f"would give other bits every time. {remedy}")
    os.environ[WORKSPACE] = WORKSPACES[0]


def on_device(device: str | torch.device, values: np.ndarray | Tensor) -> Tensor:
    """A copy on the device that nobody waits for: from pinned memory to a GPU; on a CPU the same memory."""
    tensor = torch.as_tensor(values)
    if is_cuda(device):
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def autocast(device: str | torch.device, precision: str) -> AbstractContextManager:
    """The network's precision: "bfloat16" is torch's autocast, where the device has one; "float32" is without it."""
    kind, wanted = torch.device(device).type, precision == "bfloat16"
    if not torch.amp.is_autocast_available(kind) or wanted == torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, torch.bfloat16, enabled=wanted)


def compute_dtype(like: Tensor) -> torch.dtype:
    """The precision that autocast asks for on a tensor's device, or where it is off the tensor's own."""
    kind = like.device.type
    lower = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if lower else like.dtype
