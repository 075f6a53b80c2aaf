"""How Hugging Face's models are used to recommend: `generate` with a dictionary of valid prefixes.

This is the usual way (APAO, LC-Rec, LETTER): beam search with one Python call a beam and step that looks the valid
tokens up, users in the order they come, every batch padded to its longest history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec_bench.contracts import EOS, PAD

Tree = dict[int, Any]


def prefix_dictionary(codes: np.ndarray) -> Tree:
    """All (I, T) rows as nested dictionaries, token by token."""
    tree: Tree = {}
    for row in codes.tolist():
        node = tree
        for token in row:
            node = node.setdefault(token, {})
    return tree


def allowed_tokens(tree: Tree, prompt: int) -> Callable[[int, Tensor], list[int]]:
    """The function that `generate` asks for the tokens which may follow; the first `prompt` tokens are no codes."""
    def allowed(batch: int, sentence: Tensor) -> list[int]:
        node = tree
        for token in sentence[prompt:].tolist():
            node = node.get(token, {})
        return list(node) or [PAD]

    return allowed


def generate(model: Any, histories: list[np.ndarray], codes: np.ndarray, *, num_beams: int, batch_size: int,
             eos: bool = False) -> tuple[Tensor, Tensor]:
    """The `num_beams` best semantic IDs of every user and their summed log-probabilities.

    model: a T5 or Llama of transformers. histories: token ids, closed as the model wants them. codes: (I, T) valid IDs.
    eos: one token more is generated, EOS, whose log-probability counts. Returns (U, K, T) codes and (U, K) scores.
    """
    depth = codes.shape[1]
    if eos:
        codes = np.pad(codes, ((0, 0), (0, 1)), constant_values=EOS)
    tree = prefix_dictionary(codes)
    found, scores = [], []
    for first in range(0, len(histories), batch_size):
        tokens, mask = padded(histories[first:first + batch_size], left=not model.config.is_encoder_decoder)
        prompt = 1 if model.config.is_encoder_decoder else tokens.shape[1]
        answer = model.generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=codes.shape[1], num_beams=num_beams,
            num_return_sequences=num_beams, prefix_allowed_tokens_fn=allowed_tokens(tree, prompt),
            output_scores=True, return_dict_in_generate=True, early_stopping=True)
        found.append(answer.sequences[:, prompt:prompt + depth].reshape(len(tokens), num_beams, -1))
        scores.append(answer.sequences_scores.view(len(tokens), num_beams) * codes.shape[1])
    return torch.cat(found), torch.cat(scores)


def padded(histories: list[np.ndarray], *, left: bool) -> tuple[Tensor, Tensor]:
    """(B, S) token ids filled up with PAD on one side, and their mask."""
    tokens = torch.full((len(histories), max(map(len, histories))), PAD)
    for row, history in zip(tokens, histories, strict=True):
        row[len(row) - len(history) if left else 0:][:len(history)] = torch.from_numpy(history)
    return tokens, (tokens != PAD).long()


@torch.inference_mode()
def item_by_item(model: Any, history: np.ndarray, codes: np.ndarray, *, chunk: int = 512) -> Tensor:
    """(I,) summed log-probabilities of all semantic IDs for one user of a T5: one decoder pass an ID.

    The history is encoded once and repeated for every ID of a chunk.
    """
    states = model.get_encoder()(torch.from_numpy(history)[None])
    return torch.cat([_teacher_forced(model, states.last_hidden_state, labels) for labels in _chunks(codes, chunk)])


def _chunks(codes: np.ndarray, chunk: int) -> Iterator[Tensor]:
    for first in range(0, len(codes), chunk):
        yield torch.from_numpy(codes[first:first + chunk])


def _teacher_forced(model: Any, states: Tensor, labels: Tensor) -> Tensor:
    read = torch.cat([labels.new_full((len(labels), 1), PAD), labels[:, :-1]], dim=1)
    repeated = (states.expand(len(labels), -1, -1),)
    logits = model(encoder_outputs=repeated, decoder_input_ids=read, use_cache=False).logits
    return logits.log_softmax(2).gather(2, labels[:, :, None]).sum((1, 2))
