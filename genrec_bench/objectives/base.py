"""What an objective gets and what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from genrec_bench.contracts import PAD
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.lazy import F, torch
from genrec_bench.objectives.catalogue import Catalogue

if TYPE_CHECKING:
    from torch import Tensor

    Watched = dict[str, tuple[Tensor, int]]  # tensors by name, each with torch's count of writes into it

# What `needs` may name, and what it costs.
NEEDS = {
    "trie": "target_ids, catalogue, valid: which tokens may follow",
    "negatives": "negative_ids and their logits: the decoder runs over N more items a row",
    "reference": "log-probabilities of a frozen copy of the network, without gradient",
    "beam": "beam_thresholds: a beam search a batch, without gradient",
    "eos": "eos_logps: one more position of the target",
}


class shared(cached_property):  # noqa: N801  used like the property it is
    """Computed when first asked for, once for all objectives of a run; its tensor is watched from then on."""

    def __get__(self, inputs: Any, owner: type | None = None) -> Any:
        if inputs is None:
            return self
        if inputs.whole is None:
            value = super().__get__(inputs, owner)
        else:
            value = vars(inputs)[self.attrname] = self.part(getattr(inputs.whole, self.attrname), inputs)
        inputs.made[self.attrname] = (value, value._version)
        return value

    @staticmethod
    def part(value: Tensor, inputs: ObjectiveInputs) -> Tensor:
        """What these inputs see of the value that was computed for all."""
        return value


class per_negative(shared):  # noqa: N801
    """A shared property whose second dimension is the negatives."""

    @staticmethod
    def part(value: Tensor, inputs: ObjectiveInputs) -> Tensor:
        return value[:, :inputs.negative_ids.shape[1]]


@dataclass(eq=False)
class ObjectiveInputs:
    """One batch as an objective sees it (see `of`). What no objective of the run named in `needs` is None.

    All objectives of a run see the same tensors, some of them views of the decoder's trie: nothing here may be written
    into or replaced but entries of `state`, which are replaced.

    targets: (B, T) token ids of the target items, PAD where a semantic ID is shorter. logits: (B, T, V)
    teacher-forced logits of the targets, float32, with gradient.
    eos_logps: (B,) log-probability of EOS after the target ("eos").
    catalogue: all valid semantic IDs; target_ids: (B,) their numbers of the targets ("trie", "negatives").
    negative_ids: (B, N) numbers of sampled semantic IDs, not yet compared with the target ("negatives"); N is the
    objective's own num_negatives.
    node_logits: (B, P, V) logits after every distinct prefix of a row's negatives; negative_nodes: (B, N, T) which of
    the P rows predicts each negative's token. Use `negative_token_logps` or `negative_logits` instead.
    reference_target_token_logps (B, T), reference_negative_token_logps (B, N, T): of the frozen network, 0 at PAD
    ("reference").
    beam_thresholds: (B, T) summed log-probability of the B-th kept prefix after each level, -inf where fewer than B
    exist ("beam"). state: the run state of the objective that is asked, see `Objective.initial_state`; it may replace
    entries. closes_step: this is the last forward pass of an optimiser step.
    """

    targets: Tensor
    logits: Tensor
    eos_logps: Tensor | None = None
    catalogue: Catalogue | None = None
    target_ids: Tensor | None = None
    negative_ids: Tensor | None = None
    node_logits: Tensor | None = None
    negative_nodes: Tensor | None = None
    reference_target_token_logps: Tensor | None = None
    reference_negative_token_logps: Tensor | None = None
    beam_thresholds: Tensor | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    closes_step: bool = True
    made: Watched = field(default_factory=dict, init=False, repr=False)  # the shared properties asked for so far
    whole: ObjectiveInputs | None = field(default=None, init=False, repr=False)  # with all negatives of the run

    @classmethod
    def from_logits(cls, catalogue: Catalogue, target_ids: Tensor, logits: Tensor, negative_ids: Tensor | None = None,
                    negative_logits: Tensor | None = None, **rest: Any) -> ObjectiveInputs:
        """From plain logits, (B, T, V) and (B, N, T, V): for tests and for trying an objective by hand."""
        nodes = flat = None
        if negative_ids is not None:
            users, count, depth = negative_logits.shape[:3]
            nodes = torch.arange(count * depth, device=logits.device).view(1, count, depth).expand(users, -1, -1)
            flat = negative_logits.flatten(1, 2)
        return cls(catalogue.tokens[target_ids], logits, catalogue=catalogue, target_ids=target_ids,
                   negative_ids=negative_ids, node_logits=flat, negative_nodes=nodes, **rest)

    def of(self, objective: Objective) -> ObjectiveInputs:
        """What one objective sees: its own number of negatives, none where it needs none; no tensor is copied.

        Shared properties are computed on these inputs, so once for all objectives.
        """
        asks = "negatives" in objective.needs
        cut = {name: given[:, :objective.num_negatives] if asks else None
               for name in ("negative_ids", "negative_nodes", "reference_negative_token_logps")
               if (given := getattr(self, name)) is not None}
        own = dataclasses.replace(self, **cut)
        own.whole = self
        return own

    def part(self, rows: slice) -> ObjectiveInputs:
        """The same of some of the rows, as views: one of several forward passes that the network read together."""
        own = {f.name: tensor[rows] for f in dataclasses.fields(self) if f.init
               and isinstance(tensor := getattr(self, f.name), torch.Tensor)}
        return dataclasses.replace(self, **own)

    @shared
    def is_token(self) -> Tensor:
        """(B, T) bool: the target has a code at this level."""
        return self.targets != PAD

    @shared
    def target_token_logps(self) -> Tensor:
        """(B, T) natural-log probabilities of the target's tokens over the whole vocabulary, 0 at PAD."""
        logps = F.log_softmax(self.logits, dim=-1).gather(2, self.targets[:, :, None])[:, :, 0]
        return logps.masked_fill(~self.is_token, 0.0)

    @shared
    def valid(self) -> Tensor:
        """(B, T, V) bool: tokens that may follow the target's prefix ("trie")."""
        return self.catalogue.valid(self.target_ids)

    @per_negative
    def negatives(self) -> Tensor:
        """(B, N, T) token ids of the negatives, PAD where shorter ("negatives")."""
        return self.catalogue.tokens[self.negative_ids]

    @per_negative
    def negative_token_logps(self) -> Tensor:
        """(B, N, T) log-probabilities of the negatives' tokens over the whole vocabulary, 0 at PAD ("negatives")."""
        return node_token_logps(self.node_logits, self.negative_nodes, self.negatives)

    @per_negative
    def negative_logits(self) -> Tensor:
        """(B, N, T, V) logits along each negative's own path ("negatives"); large, so only where they are needed."""
        index = self.negative_nodes.flatten(1)[:, :, None].expand(-1, -1, self.node_logits.shape[2])
        return self.node_logits.gather(1, index).unflatten(1, self.negative_nodes.shape[1:])

    @per_negative
    def negative_valid(self) -> Tensor:
        """(B, N, T, V) bool: tokens that may follow each negative's prefix ("trie" and "negatives")."""
        return self.catalogue.valid(self.negative_ids)

    @per_negative
    def keep(self) -> Tensor:
        """(B, N, T) bool: the negative's prefix is neither the target's nor an earlier negative's ("negatives")."""
        return self.catalogue.distinct(torch.cat([self.target_ids[:, None], self.negative_ids], dim=1))[:, 1:]

    @per_negative
    def is_other(self) -> Tensor:
        """(B, N) bool: the negative is not the target itself ("negatives")."""
        return self.negative_ids != self.target_ids[:, None]

    def watch(self) -> Watched:
        """Every tensor that is here by now, by names such as "logits", "catalogue.tokens" and "state.weights"."""
        parts = {"": vars(self), "catalogue.": vars(self.catalogue) if self.catalogue else {}, "state.": self.state}
        return {prefix + name: (tensor, tensor._version) for prefix, part in parts.items()
                for name, tensor in part.items() if isinstance(tensor, torch.Tensor)}

    def written(self, before: Watched) -> list[str]:
        """Names of the tensors that were written into since, or replaced where that is not allowed.

        before: what `watch` said. Not seen is what torch does not count: writes through `.data` and numpy.
        """
        now = self.watch()
        return [name for name, (tensor, version) in {**before, **self.made}.items()
                if tensor._version != version
                or not name.startswith("state.") and now.get(name, (None, 0))[0] is not tensor]


def node_token_logps(node_logits: Tensor, nodes: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of tokens given which row of logits predicts each; 0 at PAD.

    node_logits: (B, P, V). nodes, tokens: (B, N, T). Returns (B, N, T) in nats.
    """
    flat = nodes.flatten(1)
    chosen = node_logits.flatten(1).gather(1, flat * node_logits.shape[2] + tokens.flatten(1))
    logps = (chosen - node_logits.logsumexp(dim=2).gather(1, flat)).view(tokens.shape)
    return logps.masked_fill(tokens == PAD, 0.0)


def prefix_sums(token_logps: Tensor) -> Tensor:
    """(..., T) log-probabilities of tokens -> (..., T) of the prefixes of length 1..T.

    Added up in float64: the bits of a cumsum on the CPU, which torch does not have in a deterministic order on CUDA.
    """
    sums = list(token_logps.double().unbind(dim=-1))
    for level in range(1, len(sums)):
        sums[level] = sums[level - 1] + sums[level]
    return torch.stack(sums, dim=-1).to(token_logps.dtype)


class Objective:
    """Base of objective plug-ins: frozen dataclasses whose fields are settings.

    `needs` names what the feed must prepare beyond the targets' logits (see NEEDS); it may be a property that looks at
    the settings. An unknown need is refused before any data is read. With "negatives", `num_negatives` says how many it
    is given a row; with "reference", `reference` says of which weights ("initial": those training starts from,
    "first_stage": those of the first stage); with "beam", `num_beams` and `normaliser` say of which search. `version`
    is raised when the same settings give other numbers. `search_space` lists values of settings for `compare --tune`
    to try, `{"tau": [1.0, 2.0]}`, where a suite lists none. `group` is what the leaderboard lists it under with its
    relatives, "" = its own name. `limits` are pairs of own settings and the spec of another objective whose loss is
    then the same.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    group: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    num_negatives: ClassVar[int] = 0
    search_space: ClassVar[Mapping[str, list[Any]]] = {}
    couples_rows: ClassVar[bool] = False  # a row's loss depends on the other rows of its batch
    limits: ClassVar[tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...]] = ()

    def check(self) -> None:
        """Refuse settings that do not fit each other. Raises: UserError."""

    def check_depth(self, depth: int) -> None:
        """Refuse semantic IDs of `depth` levels; asked while runs are planned. Raises: DoesNotFit."""

    def initial_state(self, depth: int) -> dict[str, Tensor]:
        """What the objective carries from step to step (such as weights of levels), for IDs of `depth` levels.

        It is checkpointed, resumed, logged each epoch, and moved by training passes only.
        """
        return {}

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """(B,) loss a row, unreduced."""
        raise TypeError(f"{type(self).__name__} must define loss")


def name_of(objective: Objective) -> str:
    """The registered name, or the class's where it is not registered yet."""
    return getattr(objective, "name", type(objective).__name__)


def check_needs_type(objective: Objective) -> None:
    """Refuse `needs` that is no set of names. Raises: UserError."""
    needs = objective.needs
    if not isinstance(needs, (set, frozenset)) or not all(isinstance(need, str) for need in needs):
        raise UserError(f"objective {name_of(objective)}: needs must be a set of names, such as "
                        f"needs = frozenset({{'trie'}}), got {needs!r}.")


# What an objective with a need has to say of it.
SAID_BY = {"negatives": ("num_negatives",), "reference": ("reference",), "beam": ("num_beams", "normaliser")}


def check_needs(objectives: Iterable[Objective]) -> None:
    """Refuse an objective that asks for something nobody provides, and two that ask for different things of one kind.

    Raises: UserError.
    """
    objectives = list(objectives)
    for objective in objectives:
        check_needs_type(objective)
        name = name_of(objective)
        for need in sorted(objective.needs - set(NEEDS)):
            raise unknown("need", need, NEEDS, f"objective {name}")
        for need, attributes in SAID_BY.items():
            absent = [a for a in attributes if not getattr(objective, a, None)]
            if need in objective.needs and absent:
                raise UserError(f"objective {name} needs {need!r}, so it has to say {' and '.join(absent)}: as a "
                                "setting or an attribute of the class.")
        objective.check()
    for need, of in (("reference", lambda o: o.reference), ("beam", lambda o: (o.num_beams, o.normaliser))):
        asked = {name_of(o): of(o) for o in objectives if need in o.needs}
        if len(set(asked.values())) > 1:
            raise UserError(f"the objectives of one run share one {need}, but ask for {asked}. Set them alike.")
