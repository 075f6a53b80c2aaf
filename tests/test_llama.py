"""Llama against Hugging Face's, and what the engine relies on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec_bench.backbones.base import PrefixState
from genrec_bench.backbones.folding import prefix_tree
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.llama_network import LeanLayer, Llama, from_huggingface, rotary, rotate, to_huggingface
from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.errors import UserError
from genrec_bench.search.beam import beam_search
from genrec_bench.trie import Trie

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
VOCAB = 40


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="the comparison with Hugging Face's Llama needs transformers")


def huggingface(transformers: Any, seed: int = 0, **changes: Any) -> Any:
    """A small Llama with random weights, spread so that attention and output are far from uniform."""
    values = {"vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 3,
              "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 10, "hidden_act": "silu",
              "rms_norm_eps": 1e-5, "rope_theta": 1000.0, "max_position_embeddings": 64, "tie_word_embeddings": True,
              "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**values, **changes})).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.15)
    return model


def histories(users: int = 5, seed: int = 0, longest: int = 30) -> Tensor:
    """Token ids of unequal length, from 1, PAD at the end."""
    random = np.random.default_rng(seed)
    rows = [random.integers(2, VOCAB, size=int(random.integers(1, longest))).tolist() for _ in range(users)]
    rows[-1] = rows[-1][:1]
    width = max(map(len, rows)) + 2
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])


def candidates(users: int = 5, count: int = 4, depth: int = 4, seed: int = 0, high: int = VOCAB) -> Tensor:
    return torch.randint(2, high, (users, count, depth), generator=torch.Generator().manual_seed(seed))


def small(**changes: Any) -> LlamaSettings:
    values = {"width": 16, "num_layers": 2, "num_heads": 2, "head_width": 8, "feed_forward_width": 24}
    return LlamaSettings(**{**values, **changes})


def spread(model: Llama, seed: int = 0) -> Llama:
    """Weights large enough that what is attended to matters."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.15)
    return model.eval()


@torch.no_grad()
def teacher_forced(model: Any, history: Tensor, codes: Tensor) -> Tensor:
    """Hugging Face's logits of every candidate, (B, C, T, V): one padded batch, attention mask and positions given."""
    users, count, depth = codes.shape
    row, length = history.repeat_interleave(count, dim=0), (history != PAD).sum(1).repeat_interleave(count)
    at = length[:, None] + torch.arange(depth)
    tokens = torch.nn.functional.pad(row, (0, depth)).scatter(1, at, codes.flatten(0, 1))
    inside = torch.arange(tokens.shape[1]) < (length + depth)[:, None]
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    logits = model(input_ids=tokens, attention_mask=inside.long(), position_ids=positions).logits
    return logits.gather(1, (at - 1)[:, :, None].expand(-1, -1, VOCAB)).view(users, count, depth, VOCAB)


@pytest.mark.parametrize("seed", range(3))
def test_logits_equal_hugging_face(transformers: Any, seed: int) -> None:
    theirs = huggingface(transformers, seed)
    ours = from_huggingface(theirs)
    history, codes = histories(seed=seed), candidates(seed=seed)
    with torch.no_grad():
        logits = ours.token_logits(history, codes)
    assert logits.shape == (5, 4, 4, VOCAB) and logits.dtype == torch.float32 and not ours.training
    torch.testing.assert_close(logits, teacher_forced(theirs, history, codes), atol=1e-5, rtol=1e-5)


def test_padding_on_the_left_gives_the_same_logits(transformers: Any) -> None:
    """As the released code pads: rotary positions are relative."""
    theirs = huggingface(transformers)
    history, codes = histories(), candidates(count=1)
    length = (history != PAD).sum(1, keepdim=True)
    columns = torch.arange(history.shape[1])
    left = history.gather(1, (columns + length).remainder(history.shape[1]))
    tokens = torch.cat([left, codes[:, 0]], dim=1)
    mask = torch.cat([columns >= history.shape[1] - length, torch.ones(5, 4, dtype=torch.bool)], dim=1).long()
    with torch.no_grad():
        released = theirs(input_ids=tokens, attention_mask=mask).logits[:, -5:-1]
        ours = from_huggingface(theirs).token_logits(history, codes)[:, 0]
    torch.testing.assert_close(ours, released, atol=1e-5, rtol=1e-5)


def test_our_own_network_as_hugging_face_model(transformers: Any) -> None:
    ours = spread(small(num_layers=3, rope_theta=100.0).build(VOCAB, 1))
    with torch.no_grad():
        logits = ours.token_logits(histories(), candidates())
    theirs = to_huggingface(ours)
    assert not theirs.training
    torch.testing.assert_close(logits, teacher_forced(theirs, histories(), candidates()), atol=1e-5, rtol=1e-5)


def test_weights_survive_the_round_trip(transformers: Any, tmp_path: Any) -> None:
    ours = small().build(VOCAB, 2)
    to_huggingface(ours).save_pretrained(tmp_path)
    again = from_huggingface(transformers.LlamaForCausalLM.from_pretrained(tmp_path))
    assert not again.training and again.settings == ours.settings
    assert ours.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())
    theirs = huggingface(transformers)
    back = to_huggingface(from_huggingface(theirs)).state_dict()
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in theirs.state_dict().items())


def test_half_precision_checkpoints_become_float32(transformers: Any) -> None:
    ours = from_huggingface(huggingface(transformers).bfloat16())
    assert {p.dtype for p in ours.parameters()} == {torch.float32}


@pytest.mark.parametrize(("changes", "message"), [
    ({"hidden_act": "gelu"}, "hidden_act is not silu"), ({"attention_bias": True}, "attention_bias or mlp_bias is set"),
    ({"mlp_bias": True}, "attention_bias or mlp_bias is set"), ({"num_key_value_heads": 1}, "num_key_value_heads"),
    ({"tie_word_embeddings": False}, "not tied"), ({"attention_dropout": 0.1}, "attention_dropout is not 0"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rotary positions are scaled"),
    ({"pad_token_id": 2}, "pad_token_id is not 0"),
    ({"hidden_act": "relu", "pad_token_id": 3}, "hidden_act is not silu; pad_token_id is not 0"),
])
def test_other_llama_checkpoints_are_refused(transformers: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_huggingface(huggingface(transformers, **changes))


def test_relatives_of_llama_and_weights_of_its_own_are_refused(transformers: Any) -> None:
    for kind in ("Qwen2", "Mistral"):
        config = getattr(transformers, f"{kind}Config")(vocab_size=VOCAB, hidden_size=8, intermediate_size=8,
                                                        num_hidden_layers=1, num_attention_heads=2, head_dim=4)
        with pytest.raises(UserError, match=f"LlamaForCausalLM with model_type 'llama', got a {kind}ForCausalLM"):
            from_huggingface(getattr(transformers, f"{kind}ForCausalLM")(config))
    theirs = huggingface(transformers)
    theirs.lm_head.bias = torch.nn.Parameter(torch.ones(VOCAB))
    with pytest.raises(UserError, match=r"does not have: lm_head\.bias\."):
        from_huggingface(theirs)
    theirs = huggingface(transformers)
    theirs.model.layers[1].mlp.act_fn = torch.nn.GELU()
    with pytest.raises(UserError, match="on a random batch their logits differ"):
        from_huggingface(theirs)
    small_one = huggingface(transformers, max_position_embeddings=5)
    assert from_huggingface(small_one).settings.max_positions == 5


def test_rotation_of_an_example() -> None:
    """Width 4, base 100: pairs (0, 2) and (1, 3) turn by p and p / 10."""
    turn = rotary(torch.tensor([[2, 5]]), 4, 100.0)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 1, 2, 4)
    turned = rotate(x, turn)[0, 0]
    for row, position in enumerate((2.0, 5.0)):
        a, b = torch.tensor([position, position / 10.0])
        wanted = torch.stack([a.cos() - 3 * a.sin(), 2 * b.cos() - 4 * b.sin(), 3 * a.cos() + a.sin(),
                              4 * b.cos() + 2 * b.sin()])
        torch.testing.assert_close(turned[row], wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_folded_equals_one_candidate_at_a_time(seed: int) -> None:
    """Logits and gradients, of candidates that share prefixes, repeat and end at different lengths."""
    model, codes = spread(small().build(VOCAB, seed)), candidates(count=7, high=5, seed=seed)
    codes[:, 1], codes[0, 2:, 2:], codes[1, 3:, 1:] = codes[:, 0], PAD, PAD
    history, parameters = histories(seed=seed), list(model.parameters())
    folded = model.token_logits(history, codes)
    alone = torch.cat([model.token_logits(history, one) for one in codes.split(1, dim=1)], dim=1)
    torch.testing.assert_close(folded, alone, atol=1e-5, rtol=0)
    tree = prefix_tree(codes)
    real = codes != PAD
    torch.testing.assert_close(tree.gather(model.node_logits(history, tree))[real], alone[real], atol=1e-5, rtol=0)
    weights = torch.randn(folded.shape, generator=torch.Generator().manual_seed(seed))
    wanted = torch.autograd.grad((alone * weights).sum(), parameters)
    for found, expected in zip(torch.autograd.grad((folded * weights).sum(), parameters), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


def packed() -> tuple[Tensor, Tensor, Tensor]:
    """(sequences, sequence, length): three users with 3, 1 and 2 instances of items of four tokens."""
    sequences = torch.randint(2, VOCAB, (3, 20), generator=torch.Generator().manual_seed(7))
    sequences[1, 8:], sequences[2, 16:] = PAD, PAD
    return sequences, torch.tensor([0, 2, 0, 1, 2, 0]), torch.tensor([16, 12, 4, 4, 8, 12])


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_packed_instances_equal_separate_ones(depth: int) -> None:
    model, (sequences, sequence, length) = spread(small().build(VOCAB, 0)), packed()
    columns = torch.arange(20)
    rows = sequences[sequence]
    history = rows.masked_fill(columns >= length[:, None], PAD)
    targets = rows.gather(1, length[:, None] + torch.arange(depth))
    together = model.packed_logits(sequences, sequence, length, depth)
    separate = model.token_logits(history, targets[:, None])[:, 0]
    assert together.shape == (6, depth, VOCAB) and together.dtype == torch.float32
    torch.testing.assert_close(together, separate, atol=1e-5, rtol=0)
    weights = torch.randn(together.shape, generator=torch.Generator().manual_seed(0))
    parameters = list(model.parameters())
    wanted = torch.autograd.grad((separate * weights).sum(), parameters)
    for found, expected in zip(torch.autograd.grad((together * weights).sum(), parameters), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


def test_packed_rows_behind_the_end_of_a_sequence_are_harmless() -> None:
    """A target that is shorter than the depth at the very end of the longest sequence."""
    model = small().build(VOCAB, 0).eval()
    sequences = torch.randint(2, VOCAB, (2, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.packed_logits(sequences, torch.tensor([0, 1]), torch.tensor([4, 4]), 4)
        shorter = model.packed_logits(sequences, torch.tensor([0, 1]), torch.tensor([4, 4]), 2)
    assert logits.shape == (2, 4, VOCAB) and logits.isfinite().all()
    torch.testing.assert_close(logits[:, :2], shorter, atol=1e-6, rtol=0)


@pytest.mark.parametrize("width", [1, 6, 50])
def test_beam_scores_are_teacher_forced_sums(transformers: Any, width: int) -> None:
    theirs = huggingface(transformers)
    codes = np.random.default_rng(0).integers(0, 5, size=(30, 4)) + 2 + 5 * np.arange(4)
    codes[::5, 3] = PAD
    ours, trie = from_huggingface(theirs), Trie.from_codes(codes)
    beams = beam_search(ours, histories(), trie, num_beams=width)
    logps = teacher_forced(theirs, histories(), beams.codes.clone()).log_softmax(-1)
    sums = logps.gather(3, beams.codes[..., None])[..., 0].masked_fill(beams.codes == PAD, 0.0).sum(2)
    torch.testing.assert_close(beams.scores, sums, atol=1e-4, rtol=0)


def test_decoding_reads_a_history_once_and_never_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, shapes = LeanLayer.projections, []

    def watched(layer: LeanLayer, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        shapes.append(tuple(x.shape))
        return plain(layer, x, turn)

    monkeypatch.setattr(LeanLayer, "projections", watched)
    codes = np.random.default_rng(0).integers(2, 12, size=(40, 3))
    beam_search(small().build(VOCAB, 0).eval(), histories(), Trie.from_codes(codes), num_beams=4)
    two_layers = [(5, histories().shape[1] - 1, 16), (5, 1, 16), (5, 4, 16), (5, 4, 16)]
    assert shapes == [shape for shape in two_layers for _ in range(2)]


def test_an_empty_history_is_no_case_of_its_own() -> None:
    """Finite everywhere, and the others of the batch are as they would be without it."""
    model, codes = spread(small().build(VOCAB, 0)), candidates(3)
    history = histories(3)
    history[1] = PAD
    trie = Trie.from_codes(np.random.default_rng(0).integers(2, 12, size=(40, 4)))
    model.zero_grad()
    logits = model.token_logits(history, codes)
    logits.log_softmax(-1)[..., 3].sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(logits[[0, 2]], model.token_logits(history[[0, 2]], codes[[0, 2]]), atol=1e-5,
                                   rtol=0)
        none = model.token_logits(torch.empty(3, 0, dtype=torch.long), codes)
        torch.testing.assert_close(none[1], logits[1], atol=1e-5, rtol=0)
        assert beam_search(model, history, trie, num_beams=5).scores.isfinite().all()
        state, slow = model.start(history), PrefixState(model, history)
        torch.testing.assert_close(state.first(), slow.first(), atol=1e-5, rtol=0)


def test_too_many_tokens_are_refused() -> None:
    model = small(max_positions=8).build(VOCAB, 0)
    rows = torch.full((2, 6), 3)
    model.token_logits(rows, candidates(2, depth=3))
    with pytest.raises(UserError, match="9 tokens of history and semantic ID are more than max_positions = 8"):
        model.token_logits(rows, candidates(2, depth=4))
    with pytest.raises(UserError, match="12 tokens"):
        model.packed_logits(rows.repeat(1, 2), torch.tensor([0]), torch.tensor([4]), 4)


def test_an_odd_head_is_refused_at_planning() -> None:
    with pytest.raises(UserError, match="head_width = 7 must be an even number"):
        small(head_width=7).check()
    LlamaSettings().check()


@pytest.mark.parametrize("vocab", [1025, 1026])
def test_the_papers_size(vocab: int) -> None:
    """3.80 million at V = 1025: V D + 8 (4 D h d + 3 D F + 2 D) + D."""
    width, forward = 128, 1024
    model = LlamaSettings().build(vocab, 0)
    assert model.num_parameters() == vocab * width + 8 * (4 * width * 128 + 3 * width * forward + 2 * width) + width
    assert round(model.num_parameters() / 1e6, 2) == 3.80


def test_initial_weights_are_hugging_faces_and_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = small(width=64, feed_forward_width=128).build(VOCAB, 5).state_dict()
    torch.rand(7)
    second = small(width=64, feed_forward_width=128).build(VOCAB, 5).state_dict()
    third = small(width=64, feed_forward_width=128).build(VOCAB, 6).state_dict()
    for name, weight in first.items():
        assert torch.equal(weight, second[name])
        assert torch.equal(weight, third[name]) == name.endswith("norm.weight")
        if name.endswith("norm.weight"):
            assert (weight == 1).all()
        else:
            assert float(weight.std()) == pytest.approx(0.02, rel=0.1), name


def test_histories_have_no_suffix_and_users_are_packed() -> None:
    assert Llama.history_suffix == () and Llama.packs_users
