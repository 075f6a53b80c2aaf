"""What a run is: suite, profile and `--set` resolved to typed, frozen objects, built once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genrec_bench.core import registry, settings
from genrec_bench.core.errors import UserError
from genrec_bench.core.settings import setting


@dataclass(frozen=True)
class GivesUp:
    """When a trial of `tune` ends early; no other run sets these. See `experiments.trials.hopeless`."""

    give_up_after: int = setting(0, "epochs after which training ends if they have not reached give_up_below; 0 = "
                                    "never", low=0)
    give_up_below: float = setting(0.0, "the best validation NDCG@10 that they must have reached", low=0.0, high=1.0)


def gives_up(curve: Sequence[Mapping[str, Any]], after: int, below: float) -> bool:
    """Whether a run ends now, by the validations that it has had; the answer stays what it was when training goes on.

    curve: an entry an epoch, with "valid_ndcg@10" where the epoch was validated.
    """
    reached = [entry["valid_ndcg@10"] for entry in curve[:after] if "valid_ndcg@10" in entry]
    return bool(after) and len(curve) >= after and bool(reached) and max(reached) < below


@dataclass(frozen=True)
class TrainingConfig(GivesUp):
    """The training loop. Defaults are APAO's (5.1.3), with gradients averaged over accumulation steps."""

    learning_rate: float = setting(5e-4, "peak learning rate of AdamW", low=0.0)
    weight_decay: float = setting(0.01, "decoupled weight decay", low=0.0)
    warmup_ratio: float = setting(0.01, "share of all steps with linear warm-up", low=0.0, high=1.0)
    epochs: int = setting(200, "most epochs; the cosine schedule runs over all of them; 0 = the weights that the run "
                               "starts from are ranked as they are", low=0)
    patience: int = setting(20, "validations without improvement before stopping", low=1)
    batch_size: int = setting(128, "instances in one forward pass", low=1)
    accumulation: int = setting(8, "forward passes in one optimiser step, gradients averaged", low=1)
    bucket_steps: int = setting(1, "steps whose rows are sorted by length together; 1 = every step a plain sample",
                                low=1)
    clip_norm: float = setting(1.0, "largest gradient norm, 0 = no clipping", low=0.0)
    valid_every: int = setting(1, "epochs between validations", low=1)
    accumulation_reduction: str = setting(
        "mean", "gradients of the passes of a step: mean over its rows, or sum of the passes' means (what the released "
        "APAO scripts do under transformers 4.51)", choices=("mean", "sum"))
    selection: str = setting(
        "ndcg@10", "what the best epoch is chosen by, on validation: NDCG@10 under the search used at test, the mean "
        "loss (APAO's released CE and MSL), or the loss of the last batch alone (its released APAO models)",
        choices=("ndcg@10", "loss", "last_batch_loss"))
    schedule: str = setting(
        "exact", "steps that the learning rate is planned over: all that are made or, as Hugging Face's Trainer has it "
        "(transformers 4.51), in each epoch its passes over `accumulation`, rounded down; the first is then at rate 0, "
        "and training ends with the last that was planned", choices=("exact", "released"))
    decay_biases: bool = setting(
        True, "matrices with `bias` in their name, which T5's tables of relative positions have, are decayed like "
        "others; false as in Hugging Face's Trainer")
    dropout: bool = setting(True, "false = the network is trained in eval mode, without its dropout, as policies of "
                                  "preference objectives often are (second_stage.dropout for a second stage alone)")
    group_users: bool = setting(
        False, "shuffle users instead of rows, so that the rows of a user are trained together; a decoder-only network "
        "then reads them in one causal pass")
    memory_gib: float = setting(
        0.0, "most memory of a forward pass and its backward pass beside the network, in GiB: users go through them in "
        "as many parts as that takes, all but one computed twice; 0 = all at once, as always where a user's rows are "
        "packed (group_users). With dropout other parts draw other masks", low=0.0)
    precision: str = setting("float32", "what the network computes in; weights, optimiser, sums of norms, softmax and "
                                        "loss stay in float32", choices=("float32", "bfloat16"))


@dataclass(frozen=True)
class DecodingConfig:
    """Constrained beam search, the same at validation and test."""

    num_beams: int = setting(20, "beam width B (APAO 5.1.3)", low=1)
    normaliser: str = setting("flat", "vocabulary of the softmax", choices=("flat", "trie"))
    eos: bool = setting(False, "the log-probability of EOS behind a semantic ID counts in its score, as in Hugging "
                               "Face generate of the released scripts")
    batch_size: int = setting(256, "most users decoded together", low=1)
    temperature: float = setting(1.0, "what the logits are divided by before the softmax", low=1e-6)
    memory_gib: float = setting(2.0, "most memory of a decoding pass, in GiB; users are decoded in as many passes as "
                                     "that takes", low=1e-3)
    precision: str = setting("float32", "what the network computes in; softmax and scores stay in float32",
                             choices=("float32", "bfloat16"))


@dataclass(frozen=True)
class NegativesConfig:
    """Sampled negatives, drawn from their own seed stream: the same for every objective of one seed."""

    pool: str = setting("ids", "uniform over distinct semantic IDs (APAO), or over items", choices=("ids", "items"))
    redraw: str = setting("epoch", "when they are drawn again", choices=("epoch", "never"))


@dataclass(frozen=True)
class EvaluationConfig:
    """The same for every method of a table."""

    max_k: int = setting(20, "length of every list that is scored; selection needs NDCG@10", low=10, high=255)


@dataclass(frozen=True)
class Weighted:
    """An objective and its weight in the sum that is trained."""

    objective: Any
    weight: float = 1.0


@dataclass(frozen=True)
class Uses:
    """An earlier run that a run needs. take: "weights" to start from, or "reference" for a frozen network."""

    run: RunConfig
    take: str


@dataclass(frozen=True)
class RunConfig:
    """One run: either a `baseline`, or tokenizer + backbone + objectives trained by our loop.

    dataset, split, baseline, tokenizer, backbone and the objectives are plug-ins, frozen dataclasses with all settings.
    label: the row's name in tables; profile: which profile made it. Neither names the run. uses: runs that come first.
    """

    label: str
    profile: str
    dataset: Any
    seed: int
    split: Any
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    baseline: Any = None
    tokenizer: Any = None
    backbone: Any = None
    objectives: tuple[Weighted, ...] = ()
    training: TrainingConfig | None = None
    decoding: DecodingConfig | None = None
    negatives: NegativesConfig | None = None
    uses: tuple[Uses, ...] = ()

    @property
    def reference(self) -> str | None:
        """Which weights the frozen network has that objectives compare with; None where no objective needs one."""
        return next((w.objective.reference for w in self.objectives if "reference" in w.objective.needs), None)

    def used(self, take: str) -> RunConfig | None:
        """The run that something is taken from, or None."""
        return next((used.run for used in self.uses if used.take == take), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the record, every setting filled in; parts that do not apply are left out.

        Of a run that it uses only the differences are held: None = a part that does not apply there.
        """
        plain: dict[str, Any] = {"label": self.label, "profile": self.profile, "seed": self.seed}
        plain |= {kind: registry.resolved(part) for kind in COMPONENTS if (part := getattr(self, kind)) is not None}
        plain |= {name: settings.to_dict(part) for name in PARTS if (part := getattr(self, name)) is not None}
        if self.objectives:
            plain["objectives"] = [{**registry.resolved(w.objective), "weight": w.weight} for w in self.objectives]
        if self.uses:
            own = {**plain}
            plain["uses"] = [{"take": used.take, "run": _different(used.run.to_dict(), own)} for used in self.uses]
        return plain


COMPONENTS = {"dataset": registry.datasets, "split": registry.splits, "baseline": registry.baselines,
              "tokenizer": registry.tokenizers, "backbone": registry.backbones}
PARTS: dict[str, type] = {"training": TrainingConfig, "decoding": DecodingConfig,
                          "negatives": NegativesConfig, "evaluation": EvaluationConfig}
# What `--set` and profiles may name: the parts, and what the training of a second stage has otherwise.
SECTIONS: dict[str, type] = {**PARTS, "second_stage": TrainingConfig}
WORDS = ("split", *SECTIONS)  # what `--set` calls by no plug-in's name


def from_dict(data: Mapping[str, Any]) -> RunConfig:
    """The configuration that `RunConfig.to_dict` wrote. Raises: UserError."""
    parts: dict[str, Any] = {k: data[k] for k in ("label", "profile", "seed")}
    parts |= {kind: known.build(data[kind]) for kind, known in COMPONENTS.items() if data.get(kind) is not None}
    parts |= {name: settings.build(cls, data[name], name) for name, cls in PARTS.items() if data.get(name) is not None}
    parts["objectives"] = tuple(weighted(spec) for spec in data.get("objectives") or ())
    own = {k: v for k, v in data.items() if k != "uses"}
    parts["uses"] = tuple(Uses(from_dict({**own, **used["run"]}), used["take"]) for used in data.get("uses") or ())
    return RunConfig(**parts)


def weighted(spec: Mapping[str, Any]) -> Weighted:
    """An objective from a spec that may hold its weight. Raises: UserError."""
    weight = spec.get("weight", 1.0)
    if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not math.isfinite(weight):
        raise UserError(f"objective {spec['name']}: weight must be a number, got {weight!r}.")
    return Weighted(registry.objectives.build({k: v for k, v in spec.items() if k != "weight"}), float(weight))


def _different(data: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What of `data` is different in `other`; None for what only `other` has."""
    return {**{k: v for k, v in data.items() if other.get(k) != v}, **{k: None for k in other if k not in data}}
