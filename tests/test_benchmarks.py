"""The benchmarks themselves: tiny runs of every case of decoding and exact search, and the command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import decoding, exact, full_sort, networks, reference, surrogate, tables, watched
from benchmarks.corpora import Corpus, Setting, batches, sample
from benchmarks.harness import Arm, Case, Goal, Unequal, check_close, check_lists, measure
from benchmarks.networks import to_huggingface
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.contracts import EOS, Interactions, SemanticIds
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.config import DecodingConfig, RunConfig
from genrec_bench.search.beam import beam_search
from genrec_bench.search.exact import exact_top_k
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.training import checkpoints

TINY_TIGER = TigerSettings(width=8, num_layers=2, num_heads=2, head_width=4, feed_forward_width=16)
TINY_LLAMA = LlamaSettings(width=8, num_layers=2, num_heads=2, head_width=4, feed_forward_width=16)
NO_MACHINE = dict.fromkeys(tables.ABOUT, "x") | {"load": "0.00"}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_corpus(seed: int = 0, *, users: int = 24, items: int = 60, levels: int = 3, codes: int = 6) -> Corpus:
    random = np.random.default_rng(seed)
    sequences = tuple(random.integers(0, items, random.integers(4, 9)) for _ in range(users))
    interactions = Interactions("tiny", tuple(map(str, range(users))), tuple(map(str, range(items))), sequences)
    ids = SemanticIds.from_codes(random.integers(0, codes, (items, levels)), (codes,) * levels)
    return Corpus("tiny", LeaveOneOut().split(interactions), ids)


def tiny_setting(tmp_path: Path, *names: str) -> Setting:
    return Setting(None, tmp_path, users=6, precisions=("float32", "bfloat16"),
                   corpora={name: tiny_corpus(seed) for seed, name in enumerate(names)})


def test_batches_hold_every_row_once_and_results_come_back_in_order() -> None:
    corpus = tiny_corpus()
    data = corpus.data("test", (EOS,))
    rows = sample(data.instances.lengths, 10)
    passes = list(batches(data, rows, 300))  # two users make 600 rows of a product, three would be too many
    assert [len(places) for places, _ in passes] == [2] * 5
    seen = np.concatenate([rows[places] for places, _ in passes])
    assert sorted(seen) == sorted(rows) and (np.diff(data.instances.lengths[seen]) >= 0).all()
    model = decoding.network(TINY_TIGER, corpus.ids.vocab_size)
    codes, scores = decoding.decode(model, data, rows, corpus.trie, 5)
    alone = [beam_search(model, data.histories(rows[[n]]), corpus.trie, num_beams=5) for n in range(10)]
    check_lists((codes, scores), (torch.cat([b.codes for b in alone]), torch.cat([b.scores for b in alone])))


def test_the_dictionary_of_prefixes_says_what_may_follow() -> None:
    codes = np.array([[3, 5], [3, 6], [4, 5]])
    allowed = reference.allowed_tokens(reference.prefix_dictionary(codes), 2)
    assert [allowed(0, torch.tensor([9, 9, *prefix])) for prefix in ([], [3], [4], [3, 5], [8])] == [
        [3, 4], [5, 6], [5], [0], [0]]


def test_padding_fills_one_side() -> None:
    histories = [np.array([5, 6, 7]), np.array([8])]
    assert reference.padded(histories, left=True)[0].tolist() == [[5, 6, 7], [0, 0, 8]]
    tokens, mask = reference.padded(histories, left=False)
    assert tokens.tolist() == [[5, 6, 7], [8, 0, 0]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(("settings", "eos"), [(TINY_TIGER, True), (TINY_TIGER, False), (TINY_LLAMA, False)])
def test_generate_finds_what_beam_search_finds(settings: Any, eos: bool) -> None:
    corpus = tiny_corpus()
    model = decoding.network(settings, corpus.ids.vocab_size)
    data = corpus.data("test", model.history_suffix)
    rows = np.arange(5)
    theirs = reference.generate(to_huggingface(model), [data.histories(rows[[n]])[0].numpy() for n in rows],
                                corpus.ids.tokens, num_beams=4, batch_size=2, eos=eos)
    check_lists(decoding.decode(model, data, rows, corpus.trie, 4, eos=eos), theirs)


@pytest.mark.parametrize("settings", [TINY_TIGER, TINY_LLAMA])
def test_a_full_sort_is_every_id_scored_on_its_own(settings: Any) -> None:
    corpus = tiny_corpus()
    model = decoding.network(settings, corpus.ids.vocab_size)
    history = corpus.data("test", model.history_suffix).histories(np.array([3]))
    codes = corpus.trie.codes
    assert codes.tolist() == np.unique(corpus.ids.tokens, axis=0).tolist()
    leaves, inner = full_sort.leaf_scores(model, history, corpus.trie)
    with torch.no_grad():
        logps = torch.stack([model.token_logits(history, torch.tensor(code)[None, None])[0, 0].log_softmax(1)
                             for code in codes])
    naive = logps.gather(2, torch.from_numpy(codes)[:, :, None])[:, :, 0]
    check_close(leaves, naive.sum(1), tolerance=1e-5, what="scores")
    assert inner[0] == 0
    first = [corpus.trie.find(code[:1]) for code in codes]
    check_close(inner[first], naive[:, 0], tolerance=1e-5, what="scores of first levels")
    found = full_sort.full_sort(model, history, corpus.trie, 4)
    best = naive.sum(1).sort(descending=True, stable=True).indices[:4]
    assert found.codes[0].tolist() == codes[best].tolist()


def test_item_by_item_scores_are_those_of_the_full_sort() -> None:
    corpus = tiny_corpus()
    model = decoding.network(TINY_TIGER, corpus.ids.vocab_size)
    history = corpus.data("test", model.history_suffix).histories(np.array([2]))
    separate = reference.item_by_item(to_huggingface(model), history[0].numpy(),
                                      corpus.trie.codes, chunk=7)
    check_close(separate, full_sort.leaf_scores(model, history, corpus.trie)[0], tolerance=1e-4, what="scores")


def test_counts_of_two_sequences() -> None:
    corpus = tiny_corpus(items=5)
    split = replace(corpus.split, train_sequences=(np.array([0, 1, 2]), np.array([0, 1, 1])))
    counts = surrogate.Counts.of(split)
    assert counts.popularity.tolist() == [3 / 11, 4 / 11, 2 / 11, 1 / 11, 1 / 11]
    # user 0 has 0, 1, 2; user 1 has 0 once and 1 twice
    assert counts.together.toarray().round(12).tolist() == [[0, 0.75, 0.25, 0, 0], [0.75, 0, 0.25, 0, 0],
                                                            [0.5, 0.5, 0, 0, 0], [0] * 5, [0] * 5]


@pytest.mark.parametrize("seed", range(3))
def test_a_surrogate_has_the_probabilities_it_was_given(seed: int) -> None:
    corpus = tiny_corpus(seed)
    rows = np.arange(4)
    probability, weight = surrogate.probabilities(corpus, rows)
    assert probability.shape == (4, corpus.trie.num_ids) and 0 < weight < 1
    assert probability.sum(axis=1) == pytest.approx(np.ones(4)) and (probability > 0).all()
    model = surrogate.Surrogate(corpus.trie, probability, corpus.ids.vocab_size)
    found = exact_top_k(model, torch.arange(4)[:, None], corpus.trie, k=5)
    check_close(found.scores, np.log(np.sort(probability, axis=1)[:, :-6:-1]), tolerance=1e-5, what="scores")
    picked = np.take_along_axis(probability, found.ids.numpy(), axis=1)
    check_close(found.scores, np.log(picked), tolerance=1e-5, what="scores of the IDs")


def test_a_watched_search_counts_its_positions() -> None:
    corpus = tiny_corpus()
    model = decoding.network(TINY_TIGER, corpus.ids.vocab_size)
    histories = corpus.data("test", model.history_suffix).histories(np.arange(6))
    seen = watched.Watched(model)
    found = beam_search(seen, histories, corpus.trie, num_beams=4)
    assert seen.positions == 6 * (1 + 4 + 4) and seen.seconds > 0
    assert torch.equal(found.codes, beam_search(model, histories, corpus.trie, num_beams=4).codes)
    # on wide beams every prefix is needed: those of a level that are no leaves
    assert exact.needed_prefixes(model, corpus.data("test", model.history_suffix), np.arange(2),
                                 corpus.trie).max() <= corpus.trie.level_start[-2]


def test_every_case_of_decoding_runs_on_a_tiny_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "TigerSettings", lambda: TINY_TIGER)
    monkeypatch.setattr(decoding, "LlamaSettings", lambda: TINY_LLAMA)
    monkeypatch.setattr(decoding, "AT_ONCE", (2, 4))
    setting = tiny_setting(tmp_path, *decoding.CATALOGUES)
    rows = [row for case in decoding.cases(setting) for row in command.measured(case, 1, 1)]
    assert [(row.case, row.quantity) for row in rows if row.target] == [
        (f"{name}, beam 20, bfloat16", "speed of ours") for name in ("TIGER", "Llama")]
    assert sum(row.quantity == "multiply-adds of ours" for row in rows) == 5
    shares = [row.value for row in rows if row.quantity.endswith("than in float32")]
    assert len(shares) == 12 and all(0 <= share <= 100 for share in shares)  # ours, converted, autocast; 2 networks
    assert {f"beam {width}" for width in decoding.BEAMS} <= {row.quantity for row in rows}
    assert sum(row.value for row in rows if row.quantity.startswith("time in")) == pytest.approx(500.0)


def test_every_case_of_exact_search_runs_on_a_tiny_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tiny_setting(tmp_path, *exact.CATALOGUES)
    corpus = setting.corpus(exact.CATALOGUES[0])
    model = decoding.network(TINY_TIGER, corpus.ids.vocab_size)
    monkeypatch.setattr(exact, "TigerSettings", lambda: TINY_TIGER)
    monkeypatch.setattr(exact, "default_checkpoint", lambda setting: tmp_path / "run" / "best.safetensors")
    monkeypatch.setattr(exact, "trained", lambda setting, path: (model, corpus, 3))
    rows = [row for case in exact.cases(setting) for row in measure(case, FakeSeconds(), repeats=1, threads=1)]
    assert [(row.quantity, row.target, row.at_most) for row in rows if row.target] == [
        ("cost of exact top 20", 3, True)]
    found = {row.quantity: row.value for row in rows if row.case.startswith("tiny")}
    assert 0 < found["prefixes that any exact search reads, median"] <= found["exact top 20: decoder positions"]


class FakeSeconds:
    """A clock on which a second passes between any two looks."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> float:
        self.now += 1
        return float(self.now)


def test_a_search_that_loses_an_id_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam search instead of exact search, narrow enough to lose something."""
    setting = tiny_setting(tmp_path, "apao_office")
    corpus = setting.corpus("apao_office")
    model = decoding.network(TINY_TIGER, corpus.ids.vocab_size)
    monkeypatch.setattr(exact, "trained", lambda setting, path: (model, corpus, 3))
    monkeypatch.setattr(exact, "exact_top_k", lambda model, histories, trie, *, k: beam_search(model, histories, trie,
                                                                                              num_beams=k))
    monkeypatch.setattr(exact, "K", 3)
    with pytest.raises(Unequal, match="exact, tiny"):
        measure(exact.beside_beam(setting, tmp_path), FakeSeconds(), repeats=1, threads=1)


def write_checkpoint(path: Path, corpus: Corpus, **changed: Any) -> None:
    """What a training run of a tiny network on a corpus leaves."""
    model = decoding.network(TINY_TIGER, corpus.ids.vocab_size)
    spec = {"name": "tiger", **{f: getattr(TINY_TIGER, f) for f in ("width", "num_layers", "num_heads", "head_width",
                                                                   "feed_forward_width")}}
    config = RunConfig("a row", "quick", registry.datasets.build({"name": "ml-100k"}), 0, LeaveOneOut(),
                       backbone=registry.backbones.build(spec),
                       decoding=changed.pop("decoding", DecodingConfig()))
    about = {"config": config.to_dict(), "codebook_sizes": list(corpus.ids.codebook_sizes), "epoch": 7,
             "split_fingerprint": corpus.split.fingerprint, **changed}
    checkpoints.write(path, checkpoints.named("model", model.state_dict())
                      | {"semantic_ids": torch.from_numpy(corpus.ids.tokens)}, about)


def test_a_checkpoint_is_read_with_its_data_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, path = tiny_corpus(), tmp_path / "best.safetensors"
    monkeypatch.setattr(registry.datasets.get("ml-100k"), "load", lambda self, data_dir: corpus.split.interactions)
    write_checkpoint(path, corpus)
    model, found, epoch = networks.trained(Setting(None, tmp_path), path)
    assert epoch == 7 and found.split.fingerprint == corpus.split.fingerprint and model.settings.width == 8
    assert torch.equal(model.shared.weight, decoding.network(TINY_TIGER, corpus.ids.vocab_size).shared.weight)
    for changed, message in (({"split_fingerprint": "0"}, "another split"),
                             ({"decoding": DecodingConfig(normaliser="trie")}, "another softmax")):
        write_checkpoint(path, corpus, **changed)
        with pytest.raises(UserError, match=message):
            networks.trained(Setting(None, tmp_path), path)


@pytest.mark.parametrize(("finished", "found", "trains"), [
    ({"whole"}, "whole", False), (set(), "short", True), ({"without weights"}, None, True)])
def test_a_network_is_trained_only_where_there_is_none(finished: set[str], found: str | None, trains: bool,
                                                       tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run_suite(name: str, **options: Any) -> list[Any]:
        asked.append(options["training"])
        if found is not None:
            (tmp_path / "short").mkdir()
            (tmp_path / "short" / "best.safetensors").touch()
        return [SimpleNamespace(run_id="short")]

    (tmp_path / "whole").mkdir()
    if "whole" in finished:
        (tmp_path / "whole" / "best.safetensors").touch()
    workspace = SimpleNamespace(prepare=lambda config, keep: SimpleNamespace(run_id="whole"),
                                store=SimpleNamespace(find=lambda run_id: bool(finished)),
                                folder=lambda run_id: tmp_path / run_id)
    monkeypatch.setattr(networks, "Workspace", lambda *args: workspace)
    monkeypatch.setattr(networks, "run_suite", run_suite)
    if found is None:
        with pytest.raises(UserError, match="its run is finished. Give --checkpoint"):
            networks.default_checkpoint(Setting(None, tmp_path))
    else:
        path = networks.default_checkpoint(Setting(None, tmp_path))
        assert path == tmp_path / found / "best.safetensors"
    assert asked == [{"epochs": networks.EPOCHS}] * trains


@pytest.mark.parametrize(("words", "message"), [
    (["--only", "decodign"], "unknown benchmark 'decodign' in --only. Did you mean 'decoding'?"),
    (["--repeats", "0"], "--repeats must be at least 1, got 0."),
    (["--checkpoint", "nowhere"], "--checkpoint: no file nowhere."),
    (["--data-dir", "nowhere"], "--data-dir points at nowhere, which is not a folder."),
    (["--reepats", "2"], "Did you mean --repeats?"),
])
def test_mistakes_end_with_one_message(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def agree(*outputs: Any) -> None:
    """An `equal` that is content with everything."""


def one_case(equal: Callable[..., None] = agree) -> Callable[[Setting], list[Case]]:
    return lambda setting: [Case("decoding", "toy", (Arm("a", lambda: 1, 1), Arm("b", lambda: 2, 1)), equal,
                                 threads=(1, 2), plainly=True, goal=Goal(2))]


def run_here(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str | None]]:
    """Let the command call its workers in this process; returns the environments it gave them."""
    environments = []

    def worker(words: list[str], variables: dict[str, str | None]) -> int:
        environments.append(variables)
        return command.main(words[3:])

    monkeypatch.setattr(command, "run_worker", worker)
    return environments


def test_the_command_measures_in_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environments = run_here(monkeypatch)
    monkeypatch.setattr(decoding, "cases", one_case())
    words = ["--only", "decoding", "--repeats", "2", "--out", str(tmp_path)]
    assert command.main(words) == 0
    rows = [line.row for line in tables.read(tmp_path / "results.csv")]
    places = [(1, "keeps", 2), (2, "keeps", 2), (1, "default", None)]
    assert [(row.quantity, row.threads, row.allocator, row.target) for row in rows] == [
        (q, threads, allocator, goal if q == "speed of a" else None) for threads, allocator, goal in places
        for q in ("a", "b", "speed of a")]
    assert [(env["OMP_NUM_THREADS"], env["OMP_WAIT_POLICY"], env["MALLOC_TOP_PAD_"]) for env in environments] == [
        ("1", "PASSIVE", "268435456"), ("2", "PASSIVE", "268435456"), ("1", "PASSIVE", None)]
    assert (tmp_path / "results.md").read_text() == tables.render(tables.read(tmp_path / "results.csv"))


def test_a_worker_has_the_allocator_of_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", "7")
    asked = [sys.executable, "-c", "import os, sys; sys.exit(int(os.environ.get('MALLOC_TOP_PAD_', 0)) % 100)"]
    assert [command.run_worker(asked, variables) for variables in command.ALLOCATORS.values()] == [56, 0]


def test_nothing_is_written_where_arms_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture) -> None:
    run_here(monkeypatch)
    monkeypatch.setattr(decoding, "cases", one_case(lambda a, b: check_close(a, b, tolerance=0.5, what="numbers")))
    assert command.main(["--only", "decoding", "--out", str(tmp_path / "out")]) == 1
    assert "decoding, toy: numbers differ by 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    run_here(monkeypatch)
    monkeypatch.delenv("GENREC_BENCH_DATA", raising=False)
    assert command.main(["--only", "decoding", "--out", str(tmp_path)]) == 2
    assert "dataset apao_office needs the data folder" in capsys.readouterr().err
