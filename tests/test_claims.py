"""The papers' claims: that each can be measured, estimates by hand, answers, and what is said of nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest

from genrec_bench.analysis import pruning
from genrec_bench.analysis.claims import NOT_SEEN, OPEN, SEEN, answer_between, answering, outside
from genrec_bench.analysis.significance import detectable
from genrec_bench.contracts import Rankings
from genrec_bench.reporting import claims
from genrec_bench.reporting.pages import Pages
from genrec_bench.reporting.papers import load_paper, paper_names
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results.records import RecordStore
from tests.small_diagnoses import diagnosis_of, stored_beside
from tests.small_records import record_of

CE, POINT = "TIGER + cross-entropy", "TIGER + APAO-Pointwise"
CLAIMS = [(key, claim) for key in paper_names() for claim in load_paper(key).claims]
USERS = 200


@pytest.mark.parametrize(("interval", "found"), [((0.1, 0.2), SEEN), ((-0.1, 0.2), OPEN), ((-0.2, -0.1), NOT_SEEN),
                                                 ((0.2, 0.4), OPEN), ((0.31, 0.4), NOT_SEEN), ((0.0, 0.2), OPEN),
                                                 ((0.0, 0.0), NOT_SEEN)])
def test_a_range_by_hand(interval, found):
    assert answer_between(*interval, 0.0, 0.3) == found


def test_what_is_no_range():
    for wrong in ((0.2, 0.1, 0.0, 0.3), (0.1, 0.2, 0.3, 0.3), (math.nan, 0.2, 0.0, 0.3)):
        with pytest.raises(ValueError, match="an interval and a range"):
            answer_between(*wrong)


def test_few_seeds_answer_by_the_wider_interval():
    """The outer ends of both intervals from two to four seeds, nothing from one; from five on the first alone."""
    assert answering((-0.1, 0.2), (-0.3, 0.1), 3) == (-0.3, 0.2)
    assert answering((-0.1, 0.2), (0.0, 0.5), 4) == (-0.1, 0.5)
    assert answering((-0.1, 0.2), (-0.3, 0.5), 5) == (-0.1, 0.2) and answering((-0.1, 0.2), None, 1) is None


def test_a_size_outside_the_interval():
    assert outside(-0.1, 0.2, 0.3) and outside(-0.1, 0.2, -0.2) and not outside(-0.1, 0.2, 0.2)


@pytest.mark.parametrize(("key", "claim"), CLAIMS, ids=lambda one: getattr(one, "place", one))
def test_every_claim_can_be_measured(key, claim):
    """Its rows stand in the suite, its quantity is known, and its size is stated in one way or printed."""
    paper = load_paper(key)
    assert bool(claim.pairs) == bool(claim.quantity) == bool(paper.measured_by)
    rows = {row.label.partition(" + ")[2]: row for row in load_suite(paper.measured_by).rows if row.label} \
        if paper.measured_by else {}
    for pair in claim.pairs:
        assert set(pair) <= set(rows) and claim.quantity in {*claims.QUANTITIES, "ndcg@10"}
        printed = claim.printed or all(rows[name].paper_row for name in pair)
        assert (claim.gain is not None) + (claim.least is not None) == 1 or printed
        assert len(pair) == 2 or claim.least is not None


def test_changes_of_diagnoses_by_hand():
    """Against sums that are written out; b is a's reference, and beams are narrow, so that both lose something."""
    a, b = ([diagnosis_of(record_of("ml-100k", "tiger", seed), late=late) for seed in (0, 1)] for late in (1.0, 3.0))
    at, lost, top = a[0].beam(20), 0, 0
    for run in a:
        for rank, place in zip(run.of("flat", "rank"), run.of("flat", "beam_rank")[:, at], strict=True):
            top += 1 <= rank <= 20
            lost += 1 <= rank <= 20 and place == 0
    found = pruning.pruning_change(a, b, "flat", k=20, beam=20)
    rate = pruning.pruning_rate(b, "flat", k=20, beam=20).value
    assert found.value == pytest.approx(lost / top / rate - 1) and found.low < found.value < found.high
    kept = [np.mean([run.of("flat", "retained")[:, at, -1] / 20 for run in runs]) for runs in (a, b)]
    assert pruning.retention_change(a, b, "flat", beam=20).value == pytest.approx(kept[0] / kept[1] - 1)
    first, last = (np.mean([run.of("flat", "survived")[:, at] >= m for run in a]) / np.mean(
        [run.of("flat", "survived")[:, at] >= m for run in b]) for m in (1, 3))
    assert pruning.prefix_growth(a, b, "flat", beam=20).value == pytest.approx(last - first)
    mean = [pruning.beam_metric(runs, "flat", metric="ndcg", k=5, beam=beam).value for runs, beam in ((a, 20), (b, 50))]
    found = pruning.beam_change(a, b, "flat", metric="ndcg", k=5, beam=20, against_beam=50)
    assert found.value == pytest.approx(mean[0] / mean[1] - 1)
    same = pruning.beam_change(a, a, "flat", metric="ndcg", k=5, beam=20, against_beam=20)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def material_of(folder, hits, *, profile="quick", dataset="ml-100k", seeds=(0, 1, 2), seconds=None, diagnosed=False):
    """Suite apao with rows whose first users have their targets at rank 1: label -> how many of USERS."""
    store, records = RecordStore(folder), []
    for label, number in hits.items():
        row = next(row for row in load_suite("apao").rows if row.label == label)
        for seed in seeds:
            record = record_of(dataset, "tiger", seed, row=row.source, profile=profile)
            record = replace(record, timings={"seconds_per_epoch": (seconds or {}).get(label, 2.0) + 0.01 * seed})
            places = (np.arange(USERS) < number + seed).astype(int)
            ranks = Rankings(places, np.ones(USERS, int), places)
            store.write(record, ranks, ranks)
            records.append(record)
    if diagnosed:
        stored_beside(store, records)
    return ReportData.of(load_suite("apao"), records, store.root)


def of(found, text):
    return [one for one in found if one.claim.text.startswith(text)]


def test_a_gain_by_hand(tmp_path):
    """51 hits a seed instead of 41 are 24.4 % more; APAO prints 15.4 % on Office, and 7.6 % in the mean of its data."""
    paper = load_paper("apao")
    material = material_of(tmp_path, {CE: 40, POINT: 50})
    one, = of(claims.evidence(paper, material), "Both forms rank better than cross-entropy")
    assert one.found.value == pytest.approx(10 / 41) and one.found.low > 0
    assert one.answer == "cannot tell: short runs"
    printed = [0.0337 / 0.0292, 0.0419 / 0.0403, 0.0332 / 0.0318, 0.0214 / 0.0201]
    assert one.claimed == pytest.approx(np.mean(printed) - 1) and one.found.floor is None
    tested = material.families[0].tests[0].comparison
    assert one.found.detectable == pytest.approx(detectable(tested) / tested.mean_b)
    other, = of(claims.evidence(paper, material), "S-DPO beside")
    assert (other.answer, other.why, other.block) == (OPEN, "not run", None)


def test_only_the_papers_data_and_settings_support(tmp_path):
    paper, hits = load_paper("apao"), {CE: 40, POINT: 50}
    text = "Both forms rank better than cross-entropy"
    for name, profile, dataset, said in (("a", "paper", "apao_office", "supports (3 seeds)"),
                                         ("b", "standard", "apao_office", "seen (3 seeds)"),
                                         ("c", "paper", "ml-100k", "seen (3 seeds)"),
                                         ("e", "quick", "apao_office", "cannot tell: short runs")):
        found = of(claims.evidence(paper, material_of(tmp_path / name, hits, profile=profile, dataset=dataset)), text)
        assert [one.answer for one in found] == [said], (profile, dataset)
    worse = material_of(tmp_path / "d", {CE: 50, POINT: 40}, profile="paper", dataset="apao_office")
    one, = of(claims.evidence(paper, worse), text)
    assert one.answer == "contradicts (3 seeds)" and one.claimed == pytest.approx(0.0337 / 0.0292 - 1)
    known = claims.summary(paper, claims.evidence(paper, worse))
    assert known["profiles"] == [{"name": "paper", "data": "apao_office",
                                  "counts": [("contradicts (3 seeds)", 1), ("supports (3 seeds)", 1)]}]
    assert known["own"] and known["settled"] == 2


def test_noise_floor_from_four_seeds(tmp_path):
    """40, 41, 42, 43 hits: SD 1.291 of 41.5, times the root of 2/3 for three seeds a row."""
    material = material_of(tmp_path, {CE: 40, POINT: 50}, seeds=(0, 1, 2, 3))
    one, = of(claims.evidence(load_paper("apao"), material), "Both forms rank better than cross-entropy")
    assert one.found.floor == pytest.approx(math.sqrt(5 / 3) / 41.5 * math.sqrt(2 / one.found.seeds))


def test_times_by_hand(tmp_path):
    """3.0, 3.01, 3.02 s over 2.0, 2.01, 2.02 s: 49.75 % more, which lies outside ±20 %."""
    longer = material_of(tmp_path, {CE: 40, POINT: 40}, seconds={POINT: 3.0}, profile="standard")
    one, = of(claims.evidence(load_paper("apao"), longer), "An epoch of the pointwise form")
    assert one.found.value == pytest.approx(np.mean([3.0 / 2.0, 3.01 / 2.01, 3.02 / 2.02]) - 1)
    assert one.answer == f"{NOT_SEEN} (3 seeds)" and one.found.high - one.found.low < 0.02
    alone, = of(claims.evidence(load_paper("apao"), material_of(tmp_path / "x", {CE: 40, POINT: 40}, seeds=(0,))),
                "An epoch of the pointwise form")
    assert alone.found is None and alone.why == "one seed"
    n, ratios = 3, np.array([3.0 / 2.0, 3.01 / 2.01, 3.02 / 2.02])
    assert one.found.detectable == pytest.approx(5.653 * ratios.std(ddof=1) / math.sqrt(n), rel=1e-3)
    records = [replace(r, provenance={**r.provenance, "commit": r.method}) for b in longer.blocks for g in b.groups
               for r in g.records]
    one, = of(claims.evidence(load_paper("apao"), ReportData.of(load_suite("apao"), records, tmp_path)),
              "An epoch of the pointwise form")
    assert (one.found, one.why) == (None, "times of other machines or commits")


def test_seeds_that_scatter_answer_nothing_when_they_are_few(tmp_path):
    """Gains of 0, 0 and 30 hits: Student's interval reaches below 0 where the bootstrap's does not."""
    paper, records = load_paper("apao"), []
    for seed, hits in enumerate((45, 50, 80)):
        made = material_of(tmp_path, {CE: 40, POINT: hits}, profile="standard", dataset="apao_office", seeds=(seed,))
        records += [r for b in made.blocks for g in b.groups for r in g.records]
    one, = of(claims.evidence(paper, ReportData.of(load_suite("apao"), records, tmp_path)), "Both forms rank better")[:1]
    assert one.found.low > 0 > one.found.over_seeds[0] and one.answer == OPEN


def test_diagnoses_are_used_where_they_are(tmp_path):
    paper, hits = load_paper("apao"), {CE: 40, POINT: 40}
    one, = of(claims.evidence(paper, material_of(tmp_path / "a", hits)), "More of the exact top 20")
    assert (one.found, one.why) == (None, "beam not measured")
    found = claims.evidence(paper, material_of(tmp_path / "b", hits, diagnosed=True))
    for text in ("More of the exact top 20", "Beam 20 is", "The gain in prefix"):
        one, = of(found, text)
        assert one.found.low < one.found.value < one.found.high and one.found.detectable > 0
    next((tmp_path / "b").rglob("*.diagnosis.npz")).unlink()
    fewer = ReportData.of(load_suite("apao"), RecordStore(tmp_path / "b").read_all(), tmp_path / "b")
    one, = of(claims.evidence(paper, fewer), "More of the exact top 20")
    assert (one.found, one.why) == (None, "beam of some seeds not measured")


def test_the_section(tmp_path):
    pages, paper = Pages(), load_paper("apao")
    text = claims.section(paper, material_of(tmp_path, {CE: 40, POINT: 50}), pages, "apao")
    assert text.startswith(f"## What APAO claims\n\n**Of APAO's {len(paper.claims)} claims none has an answer.** "
                           "Nothing has been run with the paper's own data and settings, so none is supported or "
                           "contradicted. Profile quick (ml-100k): ")
    line, = (line for line in text.splitlines() if "rank better than cross-entropy" in line)
    assert "| +7.6 " in line and "| +24.4 [" in line and "| ml-100k, quick, 3 " in line
    assert "| cannot tell: short runs " in line
    assert text.count("cannot tell: not run") == 5 and text.count("cannot tell: beam not measured") == 3
    assert len(pages.files["apao/tables/claims.csv"].decode().splitlines()) == 1 + len(claims.evidence(
        paper, material_of(tmp_path / "again", {CE: 40, POINT: 50})))
    assert "Not measured: 6 not run." in claims.section(load_paper("rankgr"), None)


def test_a_pair_on_several_data_sets_is_one_line(tmp_path):
    """51 and 46 hits instead of 41: +12.2 to +24.4 %, each with its own answer in the CSV; short runs stand aside."""
    paper, records = load_paper("apao"), []
    for dataset, profile, hits in (("apao_office", "standard", 50), ("apao_beauty", "standard", 45),
                                   ("ml-100k", "quick", 50)):
        made = material_of(tmp_path, {CE: 40, POINT: hits}, dataset=dataset, profile=profile)
        records += [r for b in made.blocks for g in b.groups for r in g.records]
    material = ReportData.of(load_suite("apao"), records, tmp_path)
    text = claims.section(paper, material, Pages(), "apao")
    line, = (line for line in text.splitlines() if "rank better than cross-entropy" in line)
    assert "| +12.2 to +24.4 " in line and "| 2 data sets, standard, 3 " in line and "claims 2 have an answer" in text
    first = claims.known_by_claim(paper, material)[0]
    assert first[2] == "apao_beauty, standard; apao_office, standard" and "seen" in first[1]
