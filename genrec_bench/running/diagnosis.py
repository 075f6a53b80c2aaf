"""What beam search throws away in one finished run: its diagnosis, a task of the walk like the run itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genrec_bench.analysis.pruning import pruning_rate
from genrec_bench.contracts import PAD
from genrec_bench.core.errors import UserError
from genrec_bench.core.walk import Told, whole_time
from genrec_bench.experiments.config import from_dict
from genrec_bench.results import diagnoses
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.running.runner import BEST
from genrec_bench.running.scheduler import name_of
from genrec_bench.running.workspace import Prepared, Workspace

BEAMS = (5, 10, 20, 50, 100)
NORMALISERS = ("flat", "trie")
TOP = 20
CAP = 100
MOST_DIFFERENT = 1e-3  # share of users whose rank may differ from the record's: scores that are all but equal


@dataclass(frozen=True)
class Question:
    """What is asked of every run. users: 0 = the standard sample."""

    beams: tuple[int, ...] = BEAMS
    users: int = 0

    def sample(self, item: Prepared) -> diagnoses.Sample:
        """The test rows of a run that are looked at."""
        size = {"limit": self.users, "drawn": self.users} if self.users else {}
        test = item.split.test
        return diagnoses.sample_rows(item.split.rows_fingerprint, len(test), users=test.groups, **size)

    def settings(self, item: Prepared) -> dict[str, Any]:
        """What a diagnosis that answers it says of itself."""
        return {"schema": diagnoses.SCHEMA, "beams": list(self.beams), "normalisers": list(NORMALISERS), "top": TOP,
                "cap": CAP, "sample": self.sample(item).about}


def answered(item: Prepared, workspace: Workspace, question: Question) -> bool:
    """Whether the run's diagnosis says what is asked, or is of more users, and so stays."""
    if not workspace.store.find(item.run_id):
        return False
    known = diagnoses.find(workspace.store, workspace.store.read(item.run_id))
    if known is None:
        return False
    wanted = question.settings(item)
    alike = {**known.settings, "beams": wanted["beams"]} == wanted and set(wanted["beams"]) <= set(known.beams)
    return alike or known.num_users > wanted["sample"]["users"]


@dataclass
class DiagnoseTask:
    """The diagnosis of a run as a task of the walk. See `core.walk.Task` and `scheduler.RunTask`."""

    WORD: ClassVar[str] = "diagnosed"
    STEP: ClassVar[str] = "batch"
    ON: ClassVar[str] = "diagnoses from their start"

    workspace: Workspace
    run_id: str
    name: str
    config: dict[str, Any]
    question: Question
    uses: tuple[str, ...] = ()

    @classmethod
    def of(cls, item: Prepared, workspace: Workspace, question: Question, **more: Any) -> DiagnoseTask:
        """The task of a run's diagnosis."""
        return cls(workspace, item.run_id, name_of(item), item.config.to_dict(), question, **more)

    @property
    def key(self) -> str:
        return f"{self.run_id}.diagnosis"

    @property
    def folder(self) -> Path:
        return self.workspace.folder(self.run_id) / "diagnosis"

    @cached_property
    def item(self) -> Prepared:
        """The run."""
        return self.workspace.prepare(from_dict(self.config), keep=False)

    def done(self) -> bool:
        return answered(self.item, self.workspace, self.question)

    def needs(self) -> float | None:
        """Seconds of all of it, since nothing stays of a part."""
        return whole_time(self.folder)

    def run(self, tell: Told) -> None:
        diagnose_run(self.item, self.workspace, self.question, tell)

    def gave_up(self, why: str) -> None:
        """The run itself has not failed."""

    def line(self) -> str:
        """What is told when it is done."""
        known = diagnoses.find(self.workspace.store, self.workspace.store.read(self.run_id))
        return f"{self.run_id}  {self.name}: {_summary(known)}"


def diagnose_run(item: Prepared, workspace: Workspace, question: Question, tell: Told) -> Diagnosis:
    """Diagnose a finished run from its best weights and write that beside its record; nothing stays of a part of it.

    Raises: UserError where the weights do not rank as the record says; TimeUp, see `Told.step`.
    """
    import torch

    from genrec_bench.batches import TokenisedInstances
    from genrec_bench.running.generative import deterministic, load_checkpoint
    from genrec_bench.search.diagnose import diagnose_rows
    from genrec_bench.trie import Trie

    record, decoding, sample = workspace.store.read(item.run_id), item.config.decoding, question.sample(item)
    searched = sorted({*question.beams, decoding.num_beams})  # the run's own beam shows whose weights these are
    model, ids, _ = load_checkpoint(workspace.folder(item.run_id) / BEST, workspace.device)
    if ids.fingerprint != item.semantic_ids.fingerprint:
        raise UserError(_strangers(item, workspace, "they were trained on other semantic IDs"))
    trie = Trie.from_codes(ids.tokens)
    data = TokenisedInstances(item.split.test, ids, model.history_suffix, workspace.device)
    with deterministic(workspace.threads, workspace.device):
        arrays = diagnose_rows(model, data, sample.rows, trie, beams=searched, normalisers=NORMALISERS, top=TOP,
                               cap=CAP, temperature=decoding.temperature, eos=decoding.eos, step=tell.step)
    inner = np.unique(trie.parent[trie.token != PAD])
    about = {**question.settings(item), "run_id": item.run_id, "levels": trie.depth,
             "catalogue": {"items": len(ids.tokens), "ids": trie.num_ids, "prefixes": trie.num_prefixes,
                           "nodes": len(inner)},
             "decoding": {k: getattr(decoding, k) for k in ("normaliser", "num_beams", "temperature", "eos")},
             "versions": {"torch": torch.__version__, "numpy": np.__version__}}
    diagnosis = Diagnosis({**about, "beams": searched}, {**arrays, "rows": sample.rows})
    _check_weights(diagnosis, item, workspace)
    diagnosis = diagnosis.with_beams(question.beams)
    diagnoses.write(diagnoses.path_of(workspace.store, record), diagnosis)
    return diagnosis


def _check_weights(diagnosis: Diagnosis, item: Prepared, workspace: Workspace) -> None:
    """The run's own beam ranks as the record says. Raises: UserError."""
    decoding, evaluation = item.config.decoding, item.config.evaluation
    ranks = diagnosis.of(decoding.normaliser, "beam_rank")[:, diagnosis.beam(decoding.num_beams)]
    stored = workspace.store.read_ranks(workspace.store.read(item.run_id)).id_ranks[diagnosis.arrays["rows"]]
    other = int((np.where(ranks > evaluation.max_k, 0, ranks) != stored).sum())
    if other > max(1, MOST_DIFFERENT * len(stored)):
        raise UserError(_strangers(item, workspace, f"{other} of {len(stored)} targets have another rank"))


def _strangers(item: Prepared, workspace: Workspace, why: str) -> str:
    return (f"the weights in {workspace.folder(item.run_id)} are not those of record {item.run_id}: {why}. Delete the "
            "record and that folder, and run again.")


def _summary(diagnosis: Diagnosis) -> str:
    """One line on the list that the run itself makes, or on the widest beam's."""
    own = diagnosis.about["decoding"]
    beam = own["num_beams"] if own["num_beams"] in diagnosis.beams else diagnosis.beams[-1]
    k = min(TOP, beam)
    lost = pruning_rate([diagnosis], own["normaliser"], k=k, beam=beam)
    if not lost.n:
        return f"full sorting ranks no target within {k}"
    return f"beam {beam} loses {lost.value:.1%} of {lost.n} targets that full sorting ranks within {k}"
