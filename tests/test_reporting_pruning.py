"""The report of diagnoses: numbers by hand, who may stand in one table, pictures, and nothing where there is none."""

import csv
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from genrec_bench.analysis import pruning as analysis
from genrec_bench.core.errors import UserError
from genrec_bench.reporting import markdown, pruning
from genrec_bench.reporting.figures import searched
from genrec_bench.reporting.figures.base import plates
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.markdown import render_suite
from genrec_bench.reporting.papers import load_paper
from genrec_bench.reporting.pruning import OTHER, OWN, Searched
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results import diagnoses
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.results.records import RunRecord
from tests.small_diagnoses import BEAMS, diagnosis_of, searched_by_arrays, stored_beside, tree_of
from tests.small_records import record_of, stored, table_rows

CE, MSL, PAIRWISE = "TIGER + cross-entropy", "TIGER + MSL", "TIGER + APAO-Pairwise"
SFT, BEAR = "TIGER + SFT (summed cross-entropy)", "TIGER + BEAR"
HEADING = "## What beam search prunes"


def run_of(label: str, seed: int = 0, suite: str = "apao", dataset: str = "ml-100k") -> RunRecord:
    """A run of a suite's row."""
    row = next(row for row in load_suite(suite).rows if row.label == label)
    return record_of(dataset, "tiger", seed, row=row.source)


def by_hand(record: RunRecord, ranks: Sequence[int], places: Sequence[int], **arrays: list) -> Diagnosis:
    """A diagnosis of users with these exact ranks, and these places in every beam that is wide enough.

    All of both normalisers; other arrays as given, or zero.
    """
    base = diagnosis_of(record, users=len(ranks))
    facts = {name: np.zeros_like(array) for name, array in base.arrays.items()}
    beam_rank = np.array([[place if place <= b else 0 for b in BEAMS] for place in places])
    for n in ("flat", "trie"):
        facts |= {f"{n}/rank": np.array(ranks), f"{n}/beam_rank": beam_rank, f"{n}/top_size": np.full(len(ranks), 20),
                  **{f"{n}/{name}": np.array(values) for name, values in arrays.items()}}
    return Diagnosis(base.about, facts)


def found_of(found: list[tuple[RunRecord, Diagnosis]], suite: str = "apao") -> Searched:
    """The one block of some runs with their diagnoses."""
    block, = arrange(load_suite(suite), [record for record, _ in found])
    result = pruning.searched(block, {record.run_id: diagnosis for record, diagnosis in found})
    assert result is not None
    return result


def material_of(found: Searched, suite: str = "apao") -> ReportData:
    """What a report with this one block is made from."""
    material = ReportData(load_suite(suite), (found.block,))
    material.__dict__["searched"] = {found.block.name: found}
    return material


def shown(found: Searched) -> str:
    """The tables of a block as the appendix has them."""
    return render("pruning_block", block=pruning.facts(found))


def random_ones(labels: Sequence[str], seeds: Sequence[int] = (0, 1), suite: str = "apao", **more) -> Searched:
    """Runs with random diagnoses."""
    runs = [run_of(label, seed, suite) for label in labels for seed in seeds]
    return found_of([(run, diagnosis_of(run, **more)) for run in runs], suite)


def test_made_up_diagnoses_agree_with_a_plain_search():
    """One user at a time, prefixes as tuples, sorted lists: the same facts as the helper's arrays."""
    tree, random, beams = tree_of(30, 3, seed=3), np.random.default_rng(0), (2, 5)
    targets = np.arange(0, 30, 3)
    scores = [-(m + random.random((len(targets), len(rows)))) for m, rows in enumerate(tree.levels)]
    facts = searched_by_arrays(tree, targets, scores, beams)
    for user, row in enumerate(targets):
        target = tuple(tree.codes[row])
        known = [{tuple(p): s for p, s in zip(rows, of[user], strict=True)}
                 for rows, of in zip(tree.levels, scores, strict=True)]
        exact = sorted(known[-1], key=known[-1].get, reverse=True)
        assert facts["rank"][user] == 1 + exact.index(target)
        assert facts["needed"][user] == 1 + sum(s >= known[-1][exact[19]] for m in (0, 1) for s in known[m].values())
        for b, width in enumerate(beams):
            beam, survived = [()], 0
            for m in range(3):
                better = [p for p in known[m] if p[:m] in beam]
                beam = sorted(better, key=known[m].get, reverse=True)[:width]
                survived += target[:m + 1] in beam
                assert facts["retained"][user, b, m] == sum(p[:m + 1] in beam for p in exact[:20])
            assert facts["survived"][user, b] == survived
            assert facts["beam_rank"][user, b] == (1 + beam.index(target) if target in beam else 0)
    assert set(np.unique(facts["survived"])) > {0, 3}


def test_a_lost_share_by_hand():
    """Ranks 1, 3, 20, 0; found at 1, not, at 5, not: one of three is lost at 20. Wilson (1 of 3): 6.1 to 79.2."""
    run = run_of(CE)
    found = found_of([(run, by_hand(run, [1, 3, 20, 0], [1, 0, 5, 0]))])
    text = shown(found)
    rows = table_rows(text, "(PR@20), by beam:")
    assert rows[CE] == ["1", "3", "33.3 % [6.1, 79.2]", "33.3 % [6.1, 79.2]", "33.3 % [6.1, 79.2]"]
    # of the top 5, ranks 1 and 3, beam 5 has one: Wilson (1 of 2) 9.5 to 90.5
    assert table_rows(text, "(PR@5), by beam:")[CE][1:3] == ["2", "50.0 % [9.5, 90.5]"]
    assert pruning.rate(found, found.rows[0].group) == "33.3 % [6.1, 79.2]" and pruning.rate(None, found) == ""


def test_nothing_to_lose_is_a_dash():
    run = run_of(CE)
    found = found_of([(run, by_hand(run, [0, 0], [0, 0]))])
    assert table_rows(shown(found), "(PR@10), by beam:")[CE] == ["1", "0", *["–"] * 4]


def test_a_gain_by_hand():
    """Two users, NDCG 1 or 0. Cross-entropy: both first under full sorting, the beam loses one: 1 and 0.5. APAO: first
    and absent under both: 0.5 and 0.5. So total 0, scoring -0.5, pruning +0.5."""
    runs = run_of(CE), run_of(PAIRWISE)
    found = found_of([(runs[0], by_hand(runs[0], [1, 1], [1, 0])), (runs[1], by_hand(runs[1], [1, 0], [1, 0]))])
    rows = table_rows(shown(found), "the rest (pruning):")
    starts = {label: [cell.split(" [")[0] for cell in cells] for label, cells in rows.items()}
    assert starts == {CE: ["1", "1.0000", "0.5000", "–", "–", "–"],
                      PAIRWISE: ["1", "0.5000", "0.5000", "+0.0000", "-0.5000", "+0.5000"]}


def test_every_row_is_under_its_own_normaliser():
    found = random_ones([CE, MSL])
    flat, trie = found.rows
    assert (flat.normaliser, trie.normaliser) == ("flat", "trie")
    for row, own, other in ((flat, "flat", "trie"), (trie, "trie", "flat")):
        runs = [diagnosis_of(record) for record in row.group.records]
        for name, here in ((own, OWN), (other, OTHER)):
            assert row.estimate(analysis.pruning_rate, here, k=10, beam=10) == \
                analysis.pruning_rate(runs, name, k=10, beam=10)
    rows = table_rows(shown(found), "where both are not:")
    assert [rows[CE][1], rows[MSL][1]] == ["flat", "trie"]
    assert rows[MSL][2] == pruning.percent(analysis.pruning_rate(
        [diagnosis_of(record) for record in trie.group.records], "flat", k=20, beam=20))


def test_tables_by_level_and_of_causes():
    found = random_ones([CE], late=0.5, skill=1.0)
    row, text = found.rows[0], shown(found)
    runs = [diagnosis_of(record, late=0.5, skill=1.0) for record in row.group.records]
    survived, ranks = (np.stack([run.of("flat", name) for run in runs]) for name in ("survived", "prefix_rank"))
    kept = np.stack([run.of("flat", "retained") for run in runs])[:, :, 2] / 20
    expected = {"in the beam after that step:": [(survived[:, :, 2] >= m).mean() for m in (1, 2, 3)],
                "prefixes of its length:": [((ranks[..., m] >= 1) & (ranks[..., m] <= 20)).mean() for m in range(3)],
                "in the beam of 20 after each step:": [kept[..., m].mean() for m in range(3)]}
    for heading, values in expected.items():
        assert [cell.split(" ")[0] for cell in table_rows(text, heading)[CE][1:]] == [f"{v:.3f}" for v in values]
    cells = table_rows(text, "of the valid tokens:")[CE]
    exact, place = (np.stack([run.of("flat", name) for run in runs]) for name in ("rank", "beam_rank"))
    for k, column in ((5, 1), (10, 4)):
        lost = (exact >= 1) & (exact <= k) & (place[:, :, 1] == 0)
        assert cells[column] == str(lost.sum())
        for vocabulary, cell in zip(("flat", "trie"), cells[column + 1:column + 3], strict=True):
            over = np.stack([(run.token_rank(vocabulary) > 10).any(axis=1) for run in runs])
            assert cell.startswith(f"{100 * over[lost].mean():.1f} %")


def test_cost_counts_prefixes():
    """150 IDs of 3 tokens, all 16 first tokens taken: beam 20 reads 1 + 16 + 20, full sorting 1 + 16 + second level."""
    found = random_ones([CE], seeds=(0,))
    prefixes = found.about["catalogue"]["prefixes"]
    assert prefixes[0] == 16 and prefixes[1] > 100 and prefixes[2] == 150
    cells = table_rows(shown(found), "every semantic ID by itself:")[CE]
    assert cells[1:6] == ["11", "21", "37", "67", "117"]
    needed = diagnosis_of(found.rows[0].group.records[0]).of("flat", "needed").mean()
    assert cells[6].split(" ")[0] == f"{needed:.0f}" and cells[7:] == [f"{17 + prefixes[1]}", "450"]


def test_who_was_looked_at_is_said():
    found = random_ones([CE], drawn_of=4000)
    said = shown(found)
    assert f"60 of 4,000 test users, drawn once for all runs (hash {found.about['sample']['sha256'][:12]})" in said
    assert "Exact ranks up to 100;" in said
    assert "all 60 test users" in shown(random_ones([CE]))


def test_missing_seeds_and_other_samples():
    """Most runs have 60 users, one 50: that one is left out, and its row is marked with the seeds it has."""
    runs = [run_of(label, seed) for label in (CE, PAIRWISE) for seed in (0, 1)]
    pairs = [(run, diagnosis_of(run, users=50 if run is runs[3] else 60)) for run in runs]
    found = found_of(pairs)
    assert [(r.group.label, r.seeds) for r in found.rows] == [(CE, (0, 1)), (PAIRWISE, (0,))]
    text = shown(found)
    assert table_rows(text, "(PR@20), by beam:")[PAIRWISE][0] == "1 of 2 †"
    assert f"Left out, as made with another sample, beams or cap: runs of {PAIRWISE}." in text
    assert f"† Fewer seeds than others: {PAIRWISE}." in text
    reference, row = found.rows
    split = pruning.gain(found, row)
    assert split == analysis.gain_split(row.runs, reference.runs[:1], OWN, metric="ndcg", k=10, beam=20)
    assert found_of(pairs[::-1]).about == found.about


def test_no_gain_without_a_common_seed_or_cross_entropy():
    runs = run_of(CE, 0), run_of(PAIRWISE, 1)
    found = found_of([(run, diagnosis_of(run)) for run in runs])
    assert pruning.gain(found, found.rows[1]) is None
    alone = random_ones([PAIRWISE])
    assert pruning.gain(alone, alone.rows[0]) is None


def test_narrow_beams_have_fewer_tables():
    found = random_ones([CE, PAIRWISE], seeds=(0,), beams=(5, 8))
    text = shown(found)
    assert "(PR@5)" in text and "(PR@10)" not in text and "Prefix Recall" not in text
    assert pruning.rate(found, found.rows[0].group) == ""
    for figure in (searched.retention_figure, searched.causes_figure):
        assert figure(material_of(found), found.block).startswith("it needs diagnoses of ")


def test_pictures_that_miss_runs_say_which():
    found = random_ones([CE], seeds=(0,))
    material = material_of(found)
    drawn = [plate.draw(material, found.block) for plate in plates(material.suite) if plate.section == "pruning"]
    assert [reason for reason in drawn if isinstance(reason, str)] == [
        "it needs diagnoses of cross-entropy and APAO on one backbone at beam 20 (`diagnose` makes them)",
        "it needs diagnoses of two objectives on one backbone at two beams (`diagnose` makes them)",
        "it needs diagnoses of an APAO row and another row on one backbone, with a common seed at beam 20 (`diagnose` "
        "makes them)"]
    other = random_ones([SFT], seeds=(0,), suite="bear-sid")
    assert searched.accuracy_figure(material_of(other, "bear-sid"), other.block) == (
        "it needs diagnoses of SFT and BEAR on one backbone at beam 10 (`diagnose` makes them)")


def test_relative_gain_in_prefix_recall():
    """Three of four users against two of four: +50 %; the interval is that of the difference over 0.5."""
    runs = run_of(PAIRWISE), run_of(CE)
    levels = ([[3] * 5, [3] * 5, [3] * 5, [0] * 5], [[3] * 5, [3] * 5, [0] * 5, [0] * 5])
    found = found_of([(run, by_hand(run, [1] * 4, [1] * 4, survived=survived))
                      for run, survived in zip(runs, levels, strict=True)])
    ours, other = searched.best_pair(found, "TIGER")
    assert (ours.group.label, other.group.label) == (PAIRWISE, CE)
    gain = searched.relative_gain((ours, other), 3)
    assert gain.value == pytest.approx(0.5) and (gain.low, gain.high) == (0.0, 1.5)


def test_printed_recall_of_figure_5():
    """Table 1, Beauty, TIGER: 0.0964 for the best form of APAO against 0.0929 for the best other loss."""
    found, paper = random_ones([CE], seeds=(0,)), load_paper("apao")
    suite = load_suite("apao")
    assert searched.printed_recall(found, suite, "TIGER", True, paper) is None
    beauty = replace(found, block=replace(found.block, dataset="apao_beauty"))
    assert [searched.printed_recall(beauty, suite, "TIGER", apao, paper) for apao in (True, False)] == [
        0.0964, 0.0929]
    assert searched.printed_recall(beauty, suite, "TIGER", True, None) is None


@pytest.fixture
def undrawn(monkeypatch):
    """Reports with the pictures of diagnoses alone."""
    monkeypatch.setattr(markdown, "plates", lambda suite=None, paper=None: [
        p for p in plates(suite, paper) if p.section == "pruning"])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("suite", "labels", "names"), [
    ("apao", (CE, MSL, PAIRWISE), ("apao-fig1b", "apao-fig1c-ml-100k", "apao-fig4-ml-100k", "apao-fig5-ml-100k")),
    ("bear-sid", (SFT, "TIGER + MSL", BEAR), ("bear-fig3-ml-100k", "bear-fig4-ml-100k", "bear-fig6-ml-100k"))])
def test_a_report_with_diagnoses(tmp_path, suite, labels, names):
    records = [run_of(label, seed, suite) for label in labels for seed in (0, 1)]
    store = stored(tmp_path / "results", records)
    stored_beside(store, records)
    paths = [render_suite(suite, rows, tmp_path / name, results=store.root)
             for name, rows in (("a", records), ("b", records[::-1]))]
    page, text = paths[0].read_text(), (paths[0].parent / "appendix.md").read_text()
    assert page.index(" PR@20, % |") < page.index("## Figures") and HEADING not in page and text.count(HEADING) == 1
    assert set(re.findall(r" \[[^]]*\]\((figures/[^)]+)\)", page)) == set(
        re.findall(r"!\[[^]]*\]\((figures/[^)]+)\)", text))
    shown = re.findall(r"!\[[^]]*\]\((figures/[^)]+)\)", text)
    assert sorted(shown) == sorted(f"figures/{name}.svg" for name in names)
    assert "nan" not in text and "None" not in text
    with open(paths[0].parent / "tables" / "pruning.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    line = next(c for c in cells if [c[k] for k in ("quantity", "normaliser", "k", "beam")] ==
                ["pruning_rate", "own", "20", "20"])
    share = analysis.pruning_rate([diagnosis_of(r) for r in records[:2]], "flat", k=20, beam=20)
    assert (float(line["value"]), int(line["n"]), line["seeds"]) == (round(share.value, 6), share.n, "2")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.usefixtures("undrawn")
def test_a_report_without_diagnoses_says_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(ReportData, "families", ())
    records = [run_of(CE), record_of("ml-100k", "popularity", 0)]
    store = stored(tmp_path / "results", records)
    path = render_suite("apao", records, tmp_path / "r").parent / "appendix.md"
    before = path.read_text()
    render_suite("apao", records, tmp_path / "r", results=store.root)
    line = ("Not measured yet: `python benchmark.py diagnose --suite apao` measures it, from the weights that runs "
            "leave below the results.")
    assert HEADING not in before and f"{HEADING}\n\n{line}\n\n## Efficiency\n\n" in path.read_text()
    assert not list(path.parent.glob("tables/pruning.csv")) and not list(path.parent.glob("figures/*"))
    only = render_suite("apao", records[1:], tmp_path / "s", results=store.root)
    assert HEADING not in (only.parent / "appendix.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_diagnosis_is_named(tmp_path):
    record = run_of(CE)
    store = stored(tmp_path / "results", [record])
    path = diagnoses.path_of(store, record)
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=re.escape(str(path))):
        render_suite("apao", [record], tmp_path / "r", results=store.root)
    assert not (tmp_path / "r").exists()
