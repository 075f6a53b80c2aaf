"""TIGER against Hugging Face's T5, and what the engine relies on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec_bench.backbones.layers import TOKENS
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.backbones.tiger_network import Tiger, from_huggingface, relative_buckets, to_huggingface
from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.errors import UserError
from genrec_bench.search.beam import beam_search
from genrec_bench.trie import Trie

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
VOCAB = 40


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="the comparison with Hugging Face's T5 needs transformers")


def huggingface(transformers: Any, seed: int = 0, **changes: Any) -> Any:
    """A small T5 with random weights, spread so that attention and output are far from uniform."""
    values = {"vocab_size": VOCAB, "d_model": 24, "d_kv": 10, "d_ff": 36, "num_layers": 3, "num_decoder_layers": 3,
              "num_heads": 3, "relative_attention_num_buckets": 16, "relative_attention_max_distance": 20,
              "feed_forward_proj": "relu", "tie_word_embeddings": True, "pad_token_id": PAD, "eos_token_id": EOS,
              "decoder_start_token_id": PAD, "dropout_rate": 0.1}
    torch.manual_seed(seed)
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**{**values, **changes})).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.1)
    return model


def histories(users: int = 5, seed: int = 0, longest: int = 30) -> Tensor:
    """Token ids with EOS, of unequal length, PAD at the end."""
    random = np.random.default_rng(seed)
    rows = [[*random.integers(2, VOCAB, size=int(random.integers(1, longest))), EOS] for _ in range(users)]
    width = max(map(len, rows)) + 2
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])


def candidates(users: int = 5, count: int = 4, depth: int = 4, seed: int = 0) -> Tensor:
    return torch.randint(2, VOCAB, (users, count, depth), generator=torch.Generator().manual_seed(seed))


def small(**changes: Any) -> TigerSettings:
    values = {"width": 16, "num_layers": 2, "num_heads": 2, "head_width": 8, "feed_forward_width": 24, "dropout": 0.0}
    return TigerSettings(**{**values, **changes})


@torch.no_grad()
def teacher_forced(model: Any, history: Tensor, codes: Tensor) -> Tensor:
    """Hugging Face's logits of every candidate, (B, C, T, V)."""
    columns = [model(input_ids=history, attention_mask=(history != PAD).long(), labels=codes[:, c].contiguous()).logits
               for c in range(codes.shape[1])]
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("seed", range(3))
def test_logits_equal_hugging_face(transformers: Any, seed: int) -> None:
    theirs = huggingface(transformers, seed)
    ours = from_huggingface(theirs)
    history, codes = histories(seed=seed), candidates(seed=seed)
    with torch.no_grad():
        logits = ours.token_logits(history, codes)
    assert logits.shape == (5, 4, 4, VOCAB) and logits.dtype == torch.float32
    torch.testing.assert_close(logits, teacher_forced(theirs, history, codes), atol=1e-5, rtol=1e-5)


def test_an_unscaled_output_is_read_where_the_checkpoint_has_one(transformers: Any) -> None:
    theirs = huggingface(transformers)
    if not hasattr(theirs.config, "scale_decoder_outputs"):
        pytest.skip("this transformers version always scales a tied output")
    theirs.config.scale_decoder_outputs = False
    with torch.no_grad():
        logits = from_huggingface(theirs).token_logits(histories(), candidates())
    torch.testing.assert_close(logits, teacher_forced(theirs, histories(), candidates()), atol=1e-5, rtol=1e-5)


def test_an_unscaled_output_stays_unscaled(transformers: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = huggingface(transformers)
    if not hasattr(theirs.config, "scale_decoder_outputs"):
        pytest.skip("this transformers version always scales a tied output")
    for scaled in (False, True):
        theirs.config.scale_decoder_outputs = scaled
        ours = from_huggingface(theirs)
        back = to_huggingface(ours)
        assert back.config.scale_decoder_outputs is scaled
        with torch.no_grad():
            logits = teacher_forced(theirs, histories(), candidates())
            torch.testing.assert_close(teacher_forced(back, histories(), candidates()), logits, atol=0, rtol=0)
        back.save_pretrained(tmp_path / str(scaled))
        again = from_huggingface(transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / str(scaled)))
        assert again.output_scale == ours.output_scale

    made = transformers.T5Config

    def older(**values: Any) -> Any:
        """As before transformers 5, which always scales a tied output."""
        config = made(**values)
        del config.scale_decoder_outputs
        return config

    monkeypatch.setattr("transformers.T5Config", older)  # by name: the module may have been replaced since
    ours.output_scale = 1.0
    with pytest.raises(UserError, match="always scales"):
        to_huggingface(ours)


@pytest.mark.parametrize(("changes", "message"), [
    ({"num_buckets": 3}, "num_buckets = 3 .* at least 4"), ({"num_buckets": 32, "max_distance": 16}, "at least 17"),
    ({"num_buckets": 4, "max_distance": 2}, "at least 3")])
def test_buckets_that_do_not_work_are_refused_at_planning(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**changes).check()
    small(num_buckets=4, max_distance=3).check()
    TigerSettings().check()
    with torch.no_grad():
        logits = small(num_buckets=4, max_distance=3).build(VOCAB, 0).eval().token_logits(histories(), candidates())
    assert logits.isfinite().all()


def test_our_own_network_as_hugging_face_model(transformers: Any) -> None:
    ours = small(num_layers=3, num_buckets=8, max_distance=16).build(VOCAB, 1).eval()
    with torch.no_grad():
        logits = ours.token_logits(histories(), candidates())
    theirs = to_huggingface(ours)
    assert not theirs.training
    torch.testing.assert_close(logits, teacher_forced(theirs, histories(), candidates()), atol=1e-5, rtol=1e-5)


def test_weights_survive_the_round_trip(transformers: Any, tmp_path: Any) -> None:
    ours = small().build(VOCAB, 2)
    to_huggingface(ours).save_pretrained(tmp_path)
    again = from_huggingface(transformers.T5ForConditionalGeneration.from_pretrained(tmp_path))
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
    assert ours.token_logits(histories(), candidates()).dtype == torch.float32


@pytest.mark.parametrize(("changes", "message"), [
    ({"feed_forward_proj": "gated-gelu"}, "feed_forward_proj is not relu"),
    ({"feed_forward_proj": "gelu"}, "feed_forward_proj is not relu"),
    ({"decoder_start_token_id": 3}, "decoder_start_token_id is not 0"),
    ({"pad_token_id": 2}, "pad_token_id is not 0"),
    ({"num_decoder_layers": 2}, "num_decoder_layers"),
])
def test_other_t5_checkpoints_are_refused(transformers: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_huggingface(huggingface(transformers, **changes))


def test_an_untied_output_is_refused_whatever_the_configuration_says(transformers: Any) -> None:
    theirs = huggingface(transformers)
    theirs.lm_head.weight = torch.nn.Parameter(theirs.shared.weight.detach() + 1.0)
    assert theirs.config.tie_word_embeddings
    with pytest.raises(UserError, match="not tied"):
        from_huggingface(theirs)
    theirs = huggingface(transformers)
    theirs.config.tie_word_embeddings = False
    with pytest.raises(UserError, match="not tied"):
        from_huggingface(theirs)


def with_a_table(side: str) -> Any:
    """What gives the encoder or the decoder an embedding table of its own."""
    def change(model: Any) -> None:
        getattr(model, side).embed_tokens = torch.nn.Embedding.from_pretrained(torch.randn(VOCAB, 24))
    return change


def with_a_bias(model: Any) -> None:
    model.lm_head.bias = torch.nn.Parameter(torch.ones(VOCAB))


def with_another_activation(model: Any) -> None:
    model.decoder.block[0].layer[2].DenseReluDense.act = torch.nn.GELU()


@pytest.mark.parametrize(("change", "message"), [
    (with_a_table("encoder"), r"does not have: encoder\.embed_tokens\.weight\."),
    (with_a_table("decoder"), r"does not have: decoder\.embed_tokens\.weight\."),
    (with_a_bias, r"does not have: lm_head\.bias\."),
    (lambda model: model.resize_token_embeddings(VOCAB + 1) and setattr(model.config, "vocab_size", VOCAB),
     r"another shape: shared\.weight\."),
    (with_another_activation, "on a random batch their logits differ"),
])
def test_weights_and_computations_of_its_own_are_refused(transformers: Any, change: Any, message: str) -> None:
    theirs = huggingface(transformers)
    change(theirs)
    with pytest.raises(UserError, match=message):
        from_huggingface(theirs)


@pytest.mark.parametrize("kind", ["MT5", "UMT5"])
def test_relatives_and_wrappers_of_t5_are_refused(transformers: Any, kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(vocab_size=VOCAB, d_model=8, d_kv=4, d_ff=8, num_layers=1,
                                                    num_heads=2, feed_forward_proj="relu", decoder_start_token_id=PAD)
    relative = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    with pytest.raises(UserError, match=f"T5ForConditionalGeneration with model_type 't5', got a {kind}"):
        from_huggingface(relative)
    with pytest.raises(UserError, match="got a OptimizedModule .*give the model inside"):
        from_huggingface(torch.compile(huggingface(transformers)))


@pytest.mark.parametrize("width", [2, 6, 50])
def test_beam_scores_are_teacher_forced_sums(transformers: Any, width: int) -> None:
    theirs = huggingface(transformers)
    codes = np.random.default_rng(0).integers(0, 5, size=(30, 4)) + 2 + 5 * np.arange(4)
    beams = beam_search(from_huggingface(theirs), histories(), Trie.from_codes(codes), num_beams=width)
    logps = teacher_forced(theirs, histories(), beams.codes.clone()).log_softmax(-1)
    sums = logps.gather(3, beams.codes[..., None]).sum(dim=(2, 3))
    torch.testing.assert_close(beams.scores, sums, atol=1e-4, rtol=0)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_equal_hugging_face(transformers: Any, bidirectional: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    for buckets, distance in ((32, 128), (16, 20), (8, 16)):
        offsets = torch.arange(200)[None, :] - torch.arange(200)[:, None]
        theirs = T5Attention._relative_position_bucket(offsets, bidirectional, buckets, distance)
        ours = relative_buckets(200, 200, bidirectional=bidirectional, num_buckets=buckets, max_distance=distance)
        assert torch.equal(ours, theirs)


def test_attention_covers_every_id_but_pad() -> None:
    """More PAD changes nothing; a token in place of PAD does; PAD in the middle is not attended to."""
    model = small().build(VOCAB, 0).eval()
    history, codes = torch.tensor([[5, 6, 7, EOS]]), candidates(1)
    with torch.no_grad():
        plain = model.token_logits(history, codes)
        longer = model.token_logits(torch.nn.functional.pad(history, (0, 9)), codes)
        other = model.token_logits(torch.tensor([[5, 6, 7, EOS, 2]]), codes)
        states, (group,) = model.encode(torch.tensor([[5, PAD, 7, EOS]]))
    torch.testing.assert_close(plain, longer, atol=1e-6, rtol=0)
    assert (plain - other).abs().max() > 1e-3
    assert group.mask.flatten().tolist() == [0.0, float("-inf"), 0.0, 0.0] and states.shape == (TOKENS, 16)


def test_a_row_depends_on_the_tokens_before_it_only() -> None:
    model = small().build(VOCAB, 0).eval()
    codes = candidates()
    with torch.no_grad():
        plain = model.token_logits(histories(), codes)
        for level in range(4):
            changed = codes.clone()
            changed[:, :, level:] = torch.randint(0, VOCAB, changed[:, :, level:].shape)
            other = model.token_logits(histories(), changed)
            torch.testing.assert_close(plain[:, :, :level + 1], other[:, :, :level + 1], atol=1e-6, rtol=0)
            if level < 3:
                assert (plain[:, :, level + 1:] - other[:, :, level + 1:]).abs().max() > 1e-3
        shorter = model.token_logits(histories(), codes[:, :, :2])
    torch.testing.assert_close(plain[:, :, :2], shorter, atol=1e-6, rtol=0)


def test_candidates_of_a_user_do_not_see_each_other() -> None:
    model = small().build(VOCAB, 0).eval()
    codes = candidates()
    with torch.no_grad():
        together = model.token_logits(histories(), codes)
        alone = torch.cat([model.token_logits(histories(), codes[:, c:c + 1]) for c in range(4)], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_evaluation_draws_no_random_numbers_and_training_does() -> None:
    model = small(dropout=0.3).build(VOCAB, 0)
    model.eval()
    with torch.no_grad():
        state = torch.get_rng_state()
        first, second = (model.token_logits(histories(), candidates()) for _ in range(2))
        assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
        model.train()
        torch.manual_seed(0)
        third = model.token_logits(histories(), candidates())
        torch.manual_seed(0)
        assert torch.equal(third, model.token_logits(histories(), candidates()))
    assert not torch.equal(first, third)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = small().build(VOCAB, 5).state_dict()
    torch.manual_seed(2)
    torch.rand(7)
    second, third = small().build(VOCAB, 5).state_dict(), small().build(VOCAB, 6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    vectors = {name for name in first if name.endswith("norm.weight")}
    assert all(torch.equal(first[name], third[name]) == (name in vectors) for name in first)


def test_initial_spread_is_t5s() -> None:
    """Embedding 1, q (D d)^-1/2, k and v D^-1/2, o (h d)^-1/2, feed-forward by its inputs, norms 1."""
    weights = TigerSettings().build(1025, 0).state_dict()
    spread = {"shared.weight": 1.0, "encoder.block.2.layer.0.SelfAttention.q.weight": (128 * 64) ** -0.5,
              "encoder.block.2.layer.0.SelfAttention.k.weight": 128 ** -0.5,
              "decoder.block.1.layer.1.EncDecAttention.v.weight": 128 ** -0.5,
              "decoder.block.1.layer.1.EncDecAttention.o.weight": 384 ** -0.5,
              "decoder.block.3.layer.2.DenseReluDense.wi.weight": 128 ** -0.5,
              "decoder.block.3.layer.2.DenseReluDense.wo.weight": 1024 ** -0.5}
    for name, expected in spread.items():
        assert float(weights[name].std()) == pytest.approx(expected, rel=0.05), name
    assert all((weights[n] == 1).all() for n in weights if n.endswith("norm.weight"))


@pytest.mark.parametrize("vocab", [1025, 1026])
def test_the_papers_size(vocab: int) -> None:
    """4.59 million at V = 1025: V D + 4 (4 D h d + 2 D F) + 4 (8 D h d + 2 D F) + biases and norms."""
    width, inner, forward = 128, 384, 1024
    encoder = 4 * (4 * width * inner + 2 * width * forward + 2 * width) + width + 32 * 6
    decoder = 4 * (8 * width * inner + 2 * width * forward + 3 * width) + width + 32 * 6
    model = TigerSettings().build(vocab, 0)
    assert model.num_parameters() == vocab * width + encoder + decoder
    assert round(model.num_parameters() / 1e6, 2) == 4.59


def test_gradients_reach_every_parameter() -> None:
    model = small(num_layers=2).build(VOCAB, 0)
    model.token_logits(histories(), candidates()).log_softmax(-1)[..., 3].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_histories_end_with_eos() -> None:
    assert Tiger.history_suffix == (EOS,)
