"""Contract checks of a backbone: a small network with made-up weights is asked what training and search ask."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec_bench.backbones.base import Backbone, PrefixState
from genrec_bench.backbones.folding import prefix_tree
from genrec_bench.backbones.settings import BackboneSettings
from genrec_bench.contracts import PAD
from genrec_bench.core.checks import Checks, Finding, expect, findings, is_a_component, no_global_draws
from genrec_bench.search.beam import beam_search
from genrec_bench.trie import Trie

VOCAB, USERS, DEPTH = 30, 6, 3
CLOSE = 1e-5
LONGEST = 20


def check_backbone(settings: BackboneSettings) -> list[Finding]:
    """Every check in turn; none stops the others."""
    return findings(CHECKS, settings)


def _network(settings: BackboneSettings) -> Backbone:
    """A network of these settings, in eval mode."""
    return settings.build(VOCAB, 0).eval()


def _histories(model: Backbone) -> Tensor:
    """(USERS, LONGEST) of six lengths, with the network's suffix."""
    random = np.random.default_rng(0)
    rows = [[*random.integers(2, VOCAB, size=2 + 3 * n), *model.history_suffix] for n in range(USERS)]
    return torch.tensor([[*row, *[PAD] * (LONGEST - len(row))] for row in rows])


def _codes(count: int = 4) -> Tensor:
    """(USERS, count, DEPTH) candidates."""
    return torch.randint(2, VOCAB, (USERS, count, DEPTH), generator=torch.Generator().manual_seed(0))


def _candidates() -> Tensor:
    """(USERS, 6, DEPTH): shared prefixes, duplicates, one user with equal candidates, shorter IDs."""
    codes = torch.randint(2, 5, (USERS, 6, DEPTH), generator=torch.Generator().manual_seed(0))
    codes[:, 5], codes[1], codes[2, :3, 1:], codes[3, 0, 2:] = codes[:, 4], codes[1, 0], PAD, PAD
    return codes


def _same(seen: Tensor, expected: Tensor, what: str, close: float = CLOSE) -> None:
    seen, expected = seen.detach(), expected.detach()
    alike = seen.shape == expected.shape and torch.allclose(seen, expected, rtol=0, atol=close)
    off = float((seen - expected).abs().max()) if seen.shape == expected.shape else tuple(seen.shape)
    expect(alike, f"{what}, to {close:g}", f"up to {off:.3g} off" if isinstance(off, float) else f"shape {off}")


def _builds(settings: BackboneSettings) -> None:
    settings.check()
    expect(isinstance(settings.build(VOCAB, 0), Backbone), "build(vocab_size, seed) to give a Backbone",
           type(settings.build(VOCAB, 0)).__name__)
    found = []
    with torch.random.fork_rng(devices=[]):
        for number, seed in enumerate((0, 0, 1)):
            torch.manual_seed(number)
            found.append(settings.build(VOCAB, seed).state_dict())
    one, again, other = found
    unlike = [key for key, tensor in one.items() if not torch.equal(tensor, again[key])]
    expect(not unlike, "the same weights from the same seed, whatever the global random numbers are",
           f"other {', '.join(unlike[:3])}")
    expect(any(not torch.equal(tensor, other[key]) for key, tensor in one.items()), "other weights from another seed",
           "the same")


@torch.no_grad()
def _gives_logits(settings: BackboneSettings) -> None:
    model = _network(settings)
    logits = model.token_logits(_histories(model), _codes())
    shape = (USERS, 4, DEPTH, VOCAB)
    expect(logits.shape == shape, f"token_logits of shape {shape}", tuple(logits.shape))
    expect(logits.dtype == torch.float32, "float32", logits.dtype)
    expect(torch.isfinite(logits).all(), "finite logits", "others")
    with no_global_draws():
        again = model.token_logits(_histories(model), _codes())
    expect(torch.equal(logits, again), "the same bits again in eval mode", "others")


@torch.no_grad()
def _is_causal(settings: BackboneSettings) -> None:
    model, codes = _network(settings), _codes()
    logits = model.token_logits(_histories(model), codes)
    for level in range(DEPTH):
        changed = codes.clone()
        changed[:, :, level:] = 2
        other = model.token_logits(_histories(model), changed)
        _same(other[:, :, :level + 1], logits[:, :, :level + 1],
              f"row {level} the same whatever tokens {level} and later are")
    shorter = model.token_logits(_histories(model), codes[:, :, :1])
    _same(shorter, logits[:, :, :1], "the first row the same for candidates of one token")


@torch.no_grad()
def _skips_padding(settings: BackboneSettings) -> None:
    model, codes = _network(settings), _codes()
    logits = model.token_logits(_histories(model), codes)
    padded = torch.nn.functional.pad(_histories(model), (0, 5))
    _same(model.token_logits(padded, codes), logits, "the same with five PAD more behind the histories")


@torch.no_grad()
def _treats_rows_alone(settings: BackboneSettings) -> None:
    """Users and candidates know nothing of each other."""
    model, codes = _network(settings), _candidates()
    histories = _histories(model)
    whole = model.token_logits(histories, codes)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    _same(model.token_logits(histories[order], codes[order]), whole[order], "the same for users in another order")
    for b in range(USERS):
        _same(model.token_logits(histories[b:b + 1], codes[b:b + 1]), whole[b:b + 1], f"the same for user {b} alone")
    for c in range(codes.shape[1]):
        _same(model.token_logits(histories, codes[:, c:c + 1]), whole[:, c:c + 1], f"the same for candidate {c} alone")


def _folds(settings: BackboneSettings) -> str | None:
    """Rows along each candidate are those of `token_logits`, and so are the gradients."""
    model, codes = _network(settings), _candidates()
    if type(model).node_logits is Backbone.node_logits:
        return "not asked: without node_logits no objective with negatives, a reference or EOS can train it"
    tree, real = prefix_tree(codes), codes != PAD
    nodes = model.node_logits(_histories(model), tree)
    shape = (*tree.tokens.shape, VOCAB)
    expect(nodes.shape == shape and nodes.dtype == torch.float32, f"node_logits of shape {shape}, float32",
           f"{tuple(nodes.shape)}, {nodes.dtype}")
    columns = [model.token_logits(_histories(model), one) for one in codes.split(1, dim=1)]
    folded, whole = tree.gather(nodes)[real], torch.cat(columns, dim=1)[real]
    _same(folded, whole, "the rows of token_logits")
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1))
    parameters = list(model.parameters())
    wanted = torch.autograd.grad((whole * weights).sum(), parameters)
    for found, expected in zip(torch.autograd.grad((folded * weights).sum(), parameters), wanted, strict=True):
        _same(found, expected, "the gradients of token_logits", CLOSE * max(1.0, float(expected.abs().max())))
    return None


@torch.no_grad()
def _packs(settings: BackboneSettings) -> str | None:
    """Instances of one user out of one pass, next to a user with a single instance."""
    model = _network(settings)
    if not model.packs_users:
        return "not asked: packs_users is False"
    expect(model.history_suffix == (), "no suffix, which would be between a history and its target",
           model.history_suffix)
    sequences = torch.randint(2, VOCAB, (2, 4 * DEPTH), generator=torch.Generator().manual_seed(0))
    sequences[1, 2 * DEPTH:] = PAD
    sequence, length = torch.tensor([0, 1, 0, 0]), torch.tensor([1, 1, 3, 2]) * DEPTH
    packed = model.packed_logits(sequences, sequence, length, DEPTH)
    for row, (group, end) in enumerate(zip(sequence.tolist(), length.tolist(), strict=True)):
        target = sequences[group, end:end + DEPTH]
        alone = model.token_logits(sequences[group, :end][None], target[None, None])[0, 0]
        _same(packed[row], alone, f"instance {row} as token_logits has it")
    return None


class _Slow:
    """The same network, asked for whole prefixes at every step of a search."""

    def __init__(self, model: Backbone) -> None:
        self.model = model

    def start(self, histories: Tensor) -> PrefixState:
        return PrefixState(self.model, histories)


def _decodes(settings: BackboneSettings) -> None:
    model: Any = _network(settings)
    trie = Trie.from_codes(np.random.default_rng(1).integers(0, 4, size=(40, DEPTH)) + 2 + 4 * np.arange(DEPTH))
    for width in (1, 5, 50):
        fast = beam_search(model, _histories(model), trie, num_beams=width)
        slow = beam_search(_Slow(model), _histories(model), trie, num_beams=width)
        _same(fast.scores, slow.scores, f"the scores of whole prefixes in a beam of {width}")
        expect(torch.equal(fast.ids, slow.ids), f"the lists of whole prefixes in a beam of {width}", "others")


def _learns(settings: BackboneSettings) -> None:
    model = _network(settings).train()
    model.token_logits(_histories(model), _codes(1)).log_softmax(-1)[..., 2].sum().backward()
    idle = [n for n, p in model.named_parameters()
            if p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any()]
    expect(not idle, "a finite gradient for every parameter", f"none for {', '.join(idle[:3])}")


CHECKS: Checks = {
    "is a frozen dataclass with documented settings": is_a_component,
    "builds the same weights from the same seed": _builds,
    "gives finite float32 logits, the same again": _gives_logits,
    "sees no token before its time": _is_causal,
    "does not see padding": _skips_padding,
    "treats users and candidates alone": _treats_rows_alone,
    "folds candidates without a difference": _folds,
    "packs the rows of a user without a difference": _packs,
    "searches as it is trained": _decodes,
    "has a gradient for every parameter": _learns,
}
