"""What objectives are fed with: negatives, folded log-probabilities, reference, thresholds, counts of passes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.batches import TokenisedInstances, training_batches
from genrec_bench.contracts import EOS, Interactions, SemanticIds
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.config import NegativesConfig
from genrec_bench.objectives.base import Objective, ObjectiveInputs, check_needs, prefix_sums
from genrec_bench.objectives.cross_entropy import CrossEntropy
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.training import feed as feeds
from genrec_bench.training.feed import PASSES, InputFeed, row_losses
from genrec_bench.trie import Trie

torch.set_num_threads(1)  # small tensors: more threads only wait for each other


class Asks(Objective):
    """Needs what it is told."""

    name: ClassVar[str] = "asks"

    def __init__(self, *needs: str, num_negatives: int = 5, num_beams: int = 4) -> None:
        self.needs, self.num_negatives, self.num_beams = frozenset(needs), num_negatives, num_beams
        self.reference, self.normaliser = "initial", "flat"

    def loss(self, inputs: ObjectiveInputs) -> torch.Tensor:
        return inputs.negative_token_logps.exp().sum(dim=(1, 2)) * inputs.keep.any(dim=2).any(dim=1)


class Toy:
    """A small network on the toy data, whose IDs are ragged where asked."""

    def __init__(self, interactions: Interactions, ragged: bool = False) -> None:
        codes = interactions.given_codes.copy()
        if ragged:
            codes[20:24, 2] = -1
        self.ids = SemanticIds.from_codes(codes)
        self.trie = Trie.from_codes(self.ids.tokens)
        self.model = TigerSettings(width=16, num_layers=1, num_heads=2, head_width=8, feed_forward_width=32,
                                   dropout=0.0).build(self.ids.vocab_size, 3)
        self.data = TokenisedInstances(LeaveOneOut().split(interactions).train, self.ids, (EOS,), "cpu")
        self.rows = np.arange(0, 60, 5)

    def feed(self, *objectives: Objective, **rest: object) -> InputFeed:
        return InputFeed(self.model, self.data, objectives, trie=self.trie, **rest)

    def inputs(self, *objectives: Objective, **rest: object) -> ObjectiveInputs:
        feed = self.feed(*objectives, **rest)
        feed.begin(1)
        return feed.inputs(self.rows)


@pytest.fixture(params=[False, True], ids=["equal length", "ragged"])
def toy(toy_interactions: Interactions, request: pytest.FixtureRequest) -> Toy:
    return Toy(toy_interactions, request.param)


def plain_logps(toy: Toy, candidates: torch.Tensor) -> torch.Tensor:
    """(B, C, T) by one plain pass over every candidate by itself."""
    histories = toy.data.histories(toy.rows)
    result = torch.zeros(candidates.shape)
    for c in range(candidates.shape[1]):
        one = candidates[:, c:c + 1]
        logps = toy.model.token_logits(histories, one).log_softmax(-1)
        result[:, c] = logps.gather(3, one[..., None])[:, 0, :, 0].masked_fill(one[:, 0] == 0, 0.0)
    return result


def test_folded_negatives_have_the_log_probabilities_of_single_passes(toy: Toy) -> None:
    inputs = toy.inputs(Asks("negatives", num_negatives=20))
    assert inputs.negatives.shape == (12, 20, 3) and torch.equal(inputs.negatives, inputs.catalogue.tokens[
        inputs.negative_ids])
    torch.testing.assert_close(inputs.negative_token_logps, plain_logps(toy, inputs.negatives), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.target_token_logps, plain_logps(toy, inputs.targets[:, None])[:, 0], atol=1e-5,
                               rtol=0)
    full = inputs.negative_logits.log_softmax(-1).gather(3, inputs.negatives[..., None])[..., 0]
    torch.testing.assert_close(full.masked_fill(inputs.negatives == 0, 0.0), inputs.negative_token_logps, atol=1e-5,
                               rtol=0)


def test_keep_is_what_a_naive_loop_says(toy: Toy) -> None:
    inputs = toy.inputs(Asks("negatives", num_negatives=20))
    targets, negatives = inputs.targets.tolist(), inputs.negatives.tolist()
    for b, row in enumerate(negatives):
        for m in range(3):
            seen = {tuple(targets[b][:m + 1])}
            for n, item in enumerate(row):
                prefix = tuple(item[:m + 1])
                assert bool(inputs.keep[b, n, m]) == (prefix not in seen and item[m] != 0)
                seen.add(prefix)
            assert [bool(x) for x in inputs.is_other[b]] == [item != targets[b] for item in row]


def test_every_objective_sees_its_own_number_of_negatives(toy: Toy) -> None:
    """The first of the run's draws, as if it were alone; what is computed serves all; none for who asks for none."""
    asks = [Asks("negatives", "reference", num_negatives=n) for n in (3, 7, 7)] + [Asks("trie", num_negatives=4)]
    whole = toy.inputs(*asks, reference=toy.model)
    few, many, same, none = (whole.of(objective) for objective in asks)
    alone = toy.inputs(asks[0], reference=toy.model)
    assert alone.negative_ids.shape == (12, 3) and many.negative_ids.shape == (12, 7)
    for name in ("negative_ids", "negatives", "negative_token_logps", "keep", "is_other", "negative_valid",
                 "reference_negative_token_logps"):
        torch.testing.assert_close(getattr(few, name), getattr(alone, name), atol=1e-5, rtol=0)
        assert torch.equal(getattr(few, name), getattr(whole, name)[:, :3])
        assert getattr(same, name).data_ptr() == getattr(many, name).data_ptr() == getattr(whole, name).data_ptr()
    assert few.negative_logits.shape[:2] == few.negative_nodes.shape[:2] == (12, 3)
    assert none.target_token_logps is few.target_token_logps is whole.target_token_logps
    assert none.negative_ids is none.negative_nodes is none.reference_negative_token_logps is None
    with pytest.raises(AttributeError):
        none.keep  # noqa: B018


@pytest.mark.parametrize("at_once", [feeds.ROWS_AT_ONCE, 10])
def test_negatives_have_their_own_stream(toy: Toy, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of many are the few; another epoch or seed draws others; "never" does not; order of rows is free."""
    monkeypatch.setattr(feeds, "ROWS_AT_ONCE", at_once)
    few, many = toy.feed(Asks("negatives", num_negatives=2)), toy.feed(Asks("negatives", num_negatives=9))
    again = toy.feed(Asks("negatives", num_negatives=9), negatives=NegativesConfig(redraw="never"))
    for feed in (few, many, again):
        feed.begin(1)
    first, kept = many.negatives(toy.rows), again.negatives(toy.rows)
    assert np.array_equal(few.negatives(toy.rows), first[:, :2])
    many.begin(2)
    again.begin(2)
    assert not np.array_equal(many.negatives(toy.rows), first) and np.array_equal(again.negatives(toy.rows), kept)
    other = toy.feed(Asks("negatives", num_negatives=9), seed=1)
    other.begin(1)
    assert not np.array_equal(other.negatives(toy.rows), first)
    many.begin(1)
    backwards = many.inputs(toy.rows[::-1].copy()).negative_ids
    assert torch.equal(backwards.flip(0), many.inputs(toy.rows).negative_ids)


@pytest.mark.parametrize("at_once", [feeds.ROWS_AT_ONCE, 10])
def test_pools_of_negatives(toy_interactions: Interactions, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """27 distinct IDs, each as often; of 30 items the three that share an ID draw it three times as often."""
    monkeypatch.setattr(feeds, "ROWS_AT_ONCE", at_once)
    toy = Toy(toy_interactions)
    shared = int(toy.trie.id_of_item[27])
    counts = {}
    for pool in ("ids", "items"):
        feed = toy.feed(Asks("negatives", num_negatives=400), negatives=NegativesConfig(pool=pool))
        feed.begin(1)
        counts[pool] = np.bincount(feed.negatives(np.arange(len(toy.data))).ravel(), minlength=toy.trie.num_ids)
        counts[pool] = counts[pool] / counts[pool].sum()
    assert counts["ids"] == pytest.approx(np.full(27, 1 / 27), abs=0.004)
    assert counts["items"][shared] == pytest.approx(3 / 30, abs=0.004)


def test_eos_is_one_more_position_of_the_target_alone(toy: Toy) -> None:
    inputs = toy.inputs(Asks("eos"))
    histories = toy.data.histories(toy.rows)
    lengths = (inputs.targets != 0).sum(dim=1)
    for row, length in enumerate(lengths.tolist()):
        longer = torch.cat([inputs.targets[row, :length], torch.tensor([EOS])])[None, None]
        logps = toy.model.token_logits(histories[row:row + 1], longer).log_softmax(-1)
        assert inputs.eos_logps[row].item() == pytest.approx(logps[0, 0, -1, EOS].item(), abs=1e-5)
    plain = toy.inputs()
    torch.testing.assert_close(inputs.target_token_logps, plain.target_token_logps, atol=1e-5, rtol=0)
    both = toy.inputs(Asks("eos", "negatives"))
    torch.testing.assert_close(both.eos_logps, inputs.eos_logps, atol=1e-5, rtol=0)
    torch.testing.assert_close(both.negative_token_logps, plain_logps(toy, both.negatives), atol=1e-5, rtol=0)


def test_the_reference_is_another_network_without_gradient(toy: Toy) -> None:
    reference = copy.deepcopy(toy.model).requires_grad_(False)
    with torch.no_grad():
        reference.shared.weight.add_(0.3 * torch.randn(reference.shared.weight.shape,
                                                       generator=torch.Generator().manual_seed(0)))
    inputs = toy.inputs(Asks("negatives", "reference"), reference=reference)
    toy.model = reference
    torch.testing.assert_close(inputs.reference_negative_token_logps, plain_logps(toy, inputs.negatives), atol=1e-5,
                               rtol=0)
    torch.testing.assert_close(inputs.reference_target_token_logps, plain_logps(toy, inputs.targets[:, None])[:, 0],
                               atol=1e-5, rtol=0)
    assert not inputs.reference_target_token_logps.requires_grad and inputs.negative_token_logps.requires_grad


@pytest.mark.parametrize("width", [1, 4, 100])
def test_thresholds_equal_a_search_by_hand(toy: Toy, width: int) -> None:
    """Level by level the best `width` prefixes over plain passes; the network is left in the mode it was in."""
    toy.model.train()
    inputs = toy.inputs(Asks("beam", num_beams=width))
    assert toy.model.training
    toy.model.eval()
    histories = toy.data.histories(toy.rows)
    for row in range(3):
        kept = {(): 0.0}
        for level in range(3):
            grown = {}
            for prefix, score in kept.items():
                node = [*prefix, 0]
                if prefix and prefix[-1] == 0:
                    grown[(*prefix, 0)] = score
                    continue
                logps = toy.model.token_logits(histories[row:row + 1], torch.tensor([[node]])).log_softmax(-1)[0, 0, -1]
                for token in toy.trie.children(prefix).tolist():
                    grown[(*prefix, token)] = score + float(logps[token])
                if len(toy.trie.items((*prefix, 0))):
                    grown[(*prefix, 0)] = score
            kept = dict(sorted(grown.items(), key=lambda kv: -kv[1])[:width])
            expected = sorted(kept.values())[0] if len(kept) == width else -np.inf
            assert float(inputs.beam_thresholds[row, level]) == pytest.approx(expected, abs=1e-4)


def test_passes_are_counted(toy_interactions: Interactions) -> None:
    toy = Toy(toy_interactions)
    feed = toy.feed()
    feed.inputs(toy.rows)
    assert feed.passes == dict(zip(PASSES, (12, 0, 36, 0), strict=True))
    feed = toy.feed(Asks("negatives", "reference", num_negatives=5), reference=toy.model)
    feed.begin(1)
    feed.inputs(toy.rows)
    positions = feed.passes["positions_with_gradient"]
    assert feed.passes["histories_with_gradient"] == feed.passes["histories_without_gradient"] == 12
    assert 36 < positions <= 12 * (1 + 6 + 6) and feed.passes["positions_without_gradient"] == positions
    feed = toy.feed(Asks("beam", num_beams=4))
    feed.inputs(toy.rows)
    assert feed.passes == dict(zip(PASSES, (12, 12, 36, 12 * (1 + 4 + 4)), strict=True))


@dataclass(frozen=True)
class Does(Objective):
    """Cross-entropy after something it is told to do."""

    name: ClassVar[str] = "does"
    needs: ClassVar[set] = {"trie", "negatives"}
    num_negatives: ClassVar[int] = 2
    first: Any = None

    def loss(self, inputs: ObjectiveInputs) -> Any:
        result = self.first(inputs)
        return CrossEntropy().loss(inputs) if result is None or result is inputs.logits else result


@pytest.mark.parametrize(("first", "named"), [
    (lambda i: i.logits.masked_fill_(~i.valid, -1e9), "logits"),
    (lambda i: i.logits.div_(2), "logits"),
    (lambda i: i.targets[:, :1].fill_(-100) and None, "targets"),  # where the loss raises because of it
    (lambda i: i.catalogue.child_token[2:3].add_(1) and None, "catalogue.child_token"),
    (lambda i: i.is_token.logical_not_() and None, "is_token"),
    (lambda i: i.valid.zero_() and None, "valid"),
    (lambda i: i.keep.zero_() and None, "keep"),
    (lambda i: setattr(i, "logits", i.logits * 0.5), "logits"),
    (lambda i: setattr(i, "state", {}), "state"),
    (lambda i: i.state["n"].add_(1) and None, "state.n"),
])
@pytest.mark.parametrize("at", [0, 1])
def test_training_stops_at_a_loss_that_writes_into_its_inputs(toy_interactions: Interactions, first: Any, named: str,
                                                              at: int) -> None:
    pair = [(1.0, Asks("negatives"))]
    pair.insert(at, (0.5, Does(first)))
    states = [{"n": torch.ones(())}, {"n": torch.ones(())}]
    inputs = Toy(toy_interactions).inputs(*(objective for _, objective in pair))
    with pytest.raises(UserError, match=rf"objective does writes into its inputs or replaces them: {named}\. The"):
        row_losses(pair, states, inputs)


@pytest.mark.parametrize(("returned", "named"), [
    (lambda i: i.target_token_logps.sum(), r"of shape \(\)"), (lambda i: i.target_token_logps, r"of shape \(12, 3\)"),
    (lambda i: 1.0, "1.0")])
def test_training_stops_at_a_loss_that_is_not_one_a_row(toy_interactions: Interactions, returned: Any,
                                                        named: str) -> None:
    objective = Does(returned)
    with pytest.raises(UserError, match=rf"objective does must return .* of shape \(12,\) .* returned .*{named}\."):
        row_losses([(1.0, objective)], [{}], Toy(toy_interactions).inputs(objective))


def test_training_stops_at_a_loss_without_gradient(toy_interactions: Interactions) -> None:
    """Beside another one too, whose gradient would hide it; where nothing is trained it may be so."""
    pair = [(1.0, Does(lambda i: i.target_token_logps.sum(1))),
            (1.0, Does(lambda i: i.target_token_logps.sum(1).detach()))]
    inputs = Toy(toy_interactions).inputs(*(objective for _, objective in pair))
    with pytest.raises(UserError, match="the loss of objective does has no gradient"):
        row_losses(pair, [{}, {}], inputs)
    with torch.no_grad():
        row_losses(pair, [{}, {}], Toy(toy_interactions).inputs(*(objective for _, objective in pair)))


def test_two_objectives_must_ask_for_the_same_reference_and_beam() -> None:
    one, other = Asks("reference"), Asks("reference")
    other.name, other.reference = "other", "first_stage"
    with pytest.raises(UserError, match="share one reference"):
        check_needs([one, other])
    wide = Asks("beam", num_beams=9)
    wide.name = "wide"
    with pytest.raises(UserError, match="share one beam"):
        check_needs([Asks("beam"), wide])


def test_users_stay_together_in_batches() -> None:
    random = np.random.default_rng(0)
    groups = np.sort(random.integers(0, 30, size=200))
    lengths = random.integers(1, 9, size=200)
    steps = list(training_batches(lengths, batch_size=10, accumulation=4, generator=np.random.default_rng(1),
                                  groups=groups))
    rows = np.concatenate([part for step in steps for part in step])
    assert sorted(rows.tolist()) == list(range(200)) and [sum(map(len, s)) for s in steps] == [40] * 5
    in_steps = [len({int(groups[r]) for part in step for r in part}) for step in steps]
    assert sum(in_steps) <= 30 + 4, "a user is cut at the border of two steps at most"
    plain = list(training_batches(lengths, batch_size=10, accumulation=4, generator=np.random.default_rng(1)))
    assert sum(len({int(groups[r]) for part in step for r in part}) for step in plain) > 60


def test_chains_are_rows_that_go_on(toy_interactions: Interactions) -> None:
    """A row joins the chain of the row before where its history is that row's history and target."""
    ids = SemanticIds.from_codes(toy_interactions.given_codes)
    for longest in (3, 20):
        rows = LeaveOneOut(max_history=longest).split(toy_interactions).train
        chains = TokenisedInstances(rows, ids, (), "cpu").chains
        for row in range(1, len(rows)):
            before = [*rows.history(row - 1).tolist(), int(rows.targets[row - 1])]
            same = rows.users[row] == rows.users[row - 1] and rows.history(row).tolist() == before
            assert (chains[row] == chains[row - 1]) == same


@pytest.mark.parametrize("name", [n for n in registry.backbones.names()
                                  if getattr(registry.backbones.build({"name": n}).build(9, 0), "packs_users", False)])
def test_packed_rows_equal_single_rows(toy_interactions: Interactions, name: str) -> None:
    """Histories cut at 4 items leave chains and single rows; logits and gradients are those of separate passes."""
    for longest, ragged in ((4, False), (20, False), (20, True)):
        toy = Toy(toy_interactions, ragged)
        toy.model = registry.backbones.build({"name": name, "width": 16, "num_layers": 2, "num_heads": 2,
                                              "feed_forward_width": 32}).build(toy.ids.vocab_size, 0)
        toy.data = TokenisedInstances(LeaveOneOut(max_history=longest).split(toy_interactions).train, toy.ids,
                                      toy.model.history_suffix, "cpu")
        results = []
        for packs in (False, True):
            toy.model.zero_grad()
            feed = toy.feed(group_users=packs)
            assert feed.packs == packs
            inputs = feed.inputs(np.random.default_rng(0).permutation(90))
            inputs.target_token_logps.sum().backward()
            results.append((inputs.target_token_logps.detach(), [p.grad.clone() for p in toy.model.parameters()]))
            if packs:
                assert feed.passes["histories_with_gradient"] < 90
        torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=0)
        for one, other in zip(results[0][1], results[1][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_prefix_sums_have_the_bits_of_a_cumsum() -> None:
    random = torch.Generator().manual_seed(0)
    for shape in ((7, 1), (5, 4), (3, 20, 4), (2, 9)):
        values = torch.randn(shape, generator=random).requires_grad_()
        same = values.detach().clone().requires_grad_()
        outward = torch.randn(shape, generator=random)
        prefix_sums(values).backward(outward)
        same.cumsum(dim=-1).backward(outward)
        assert torch.equal(prefix_sums(values), same.cumsum(dim=-1)) and torch.equal(values.grad, same.grad)


@pytest.mark.parametrize(("need", "absent"), [("negatives", "num_negatives"), ("reference", "reference"),
                                              ("beam", "num_beams")])
def test_a_need_has_to_say_of_what(need: str, absent: str) -> None:
    objective = Asks(need)
    setattr(objective, absent, None)
    with pytest.raises(UserError, match=f"needs '{need}', so it has to say {absent}"):
        check_needs([objective])
