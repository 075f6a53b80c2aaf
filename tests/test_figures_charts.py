"""What every figure has in common: its numbers beside it, readable type, styles told apart, and no drawing twice."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from genrec_bench.reporting import pages
from genrec_bench.reporting.figures import charts, style
from genrec_bench.reporting.figures.base import Plate, plates, short_name
from genrec_bench.reporting.figures.charts import Axis, Chart, point, seed_points
from genrec_bench.reporting.figures.drawing import draw
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import load_suite
from tests.test_figures_own import stored
from tests.test_figures_papers import all_seeds
from tests.test_figures_papers import material_of as papers_material

LOOKS = {name: style.look(name) for name in ("better", "worse", "reference")}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return stored(tmp_path_factory.mktemp("records"))


def drawn_charts(material: ReportData) -> list[Chart]:
    made = [p.draw(material, b) for p in plates(material.suite) for b in p.subjects(material)]
    return [chart for chart in made if isinstance(chart, Chart)]


def small(**more: object) -> Chart:
    """Three methods at two places."""
    points = [point("p", "q", name, "mean", at, at + turn, (at + turn - 0.5, at + turn + 0.5))
              for turn, name in enumerate(LOOKS) for at in (1.0, 2.0)]
    return replace(Chart("Title", "caption", points, {"q": Axis("Value")}, LOOKS, Axis("Place")), **more)


def test_every_figure_has_a_csv_with_the_drawn_numbers(material: ReportData) -> None:
    made = drawn_charts(material)
    assert len(made) == 7  # results, forest, ranking, curves, plane, popularity, history
    for chart in made:
        rows = list(csv.DictReader(io.StringIO(chart.csv)))
        assert len(rows) == len(chart.points)
        for row, p in zip(rows, chart.points, strict=True):
            assert row["method"] == p["method"] and row["mark"] == p["mark"] in charts.MARKS
            assert p["value"] is None or float(row["value"]) == p["value"]


def test_markers_are_where_the_numbers_are() -> None:
    for ticks in (None, {1.0: "a", 2.0: "b"}):
        axes, = draw(small(at=Axis("Place", ticks=ticks)), style.TEXT).axes
        found = {tuple(line.get_ydata()) for line in axes.lines if line.get_marker() not in ("", "None")}
        assert {(1 + turn, 2 + turn) for turn in range(3)} <= found
    points = [{**p, "at": str(p["at"])} for p in small().points]
    axes, = draw(small(at=None, points=points), style.TEXT).axes  # rows: values along x
    assert sorted(x for line in axes.lines if line.get_marker() in ("o", "s", "8") for x in line.get_xdata()) == [
        1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize("width", charts.WIDTHS.values())
def test_type_is_readable_at_the_width_of_a_column_and_of_a_page(material: ReportData, width: float) -> None:
    for chart in [*drawn_charts(material), small()]:
        with style.own_style():
            figure = draw(chart, width)
        assert figure.get_size_inches()[0] == width and figure.get_size_inches()[1] < 11
        sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
        assert min(sizes) >= style.SMALLEST == 7.0


def grey(color: str) -> float:
    return sum(share * part for share, part in zip((0.299, 0.587, 0.114), to_rgb(color), strict=True))


@pytest.mark.parametrize("name", ["apao", "bear-sid", "classics"])
def test_no_two_methods_share_colour_marker_and_line(name: str) -> None:
    suite = load_suite(name)
    labels = [row.label for row in suite.rows if row.backbone == "tiger"]
    looks = papers_material(suite, None, all_seeds(suite, labels[:40], profile="smoke")).look if labels else {}
    assert len(set(looks.values())) == len(looks)
    entries = [(kind, n, e) for kind in ("objective", "baseline") for n, e in style.styles()[kind].items()]
    for part in ("color", "marker", "dashes"):  # of objectives each part by itself
        parts = [str(e[part]) for kind, _, e in entries if kind == "objective"]
        assert len(set(parts)) == len(parts)
    assert abs(grey(style.styles()["objective"]["bear"]["color"]) -
               grey(style.styles()["objective"]["bear_beam"]["color"])) > 0.1


def test_a_variant_has_the_shade_of_its_kind_and_another_marker() -> None:
    suite = load_suite("bear-sid")
    names = ["TIGER + BEAR", "TIGER + BEAR, released code", "TIGER + BEAR, valid tokens"]
    plain, released, valid = papers_material(suite, None, all_seeds(suite, names)).look.values()
    assert len({plain[1], released[1], valid[1]}) == len({plain[0], released[0], valid[0]}) == 3
    assert plain == ("#d55e00", "D", (4, 1, 1, 1))


def test_figures_that_show_nothing_say_why() -> None:
    two = replace(small(), points=small().points[:2])
    assert two.lacks() == "it would show 2 points, which the tables say" and not small().lacks()
    rows = replace(two, at=None, points=seed_points("p", "q", "better", "only", [1.0, 2.0], True))
    assert rows.lacks() == "it would show 1 row, which the tables say"
    plate = Plate("own", "Own", lambda data, block: two)
    assert plate.draw(None, None) == two.lacks() and plate.key == "figure:own"
    assert Plate("apao-5", "Own", lambda data, block: None, paper="apao").number == "5"


def test_names_of_files_are_short(material: ReportData) -> None:
    def block(dataset: str, profile: str) -> Block:
        return replace(material.blocks[0], dataset=dataset, profile=profile, name=f"{dataset}, profile {profile}")
    blocks = [block("apao_office", "quick"), block("bear_office", "quick"), block("ml-100k", "quick"),
              block("ml-100k", "paper"), block("apao_beauty", "paper")]
    assert [short_name(blocks, b) for b in blocks] == ["apao-office", "bear-office", "ml-100k-quick", "ml-100k-paper",
                                                       "beauty"]
    results = next(p for p in plates() if p.key == "figure:results")
    assert results.stem(material, material.blocks[0]) == "apao-results-ml-100k"
    assert next(p for p in plates() if p.key == "figure:apao-5").stem(material, material.blocks[0]) == \
        "apao-fig5-ml-100k"


def test_what_shows_the_same_data_is_not_drawn_again(material: ReportData, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    some = [p for p in plates(material.suite) if p.key == "figure:curves"]
    drawn = []
    monkeypatch.setattr(Chart, "images", lambda self, kinds, width: drawn.append(width) or dict.fromkeys(kinds, b"x"))

    def report() -> pages.Pages:
        made = pages.Pages()
        with pages.drawing([(material, some)], 1, tmp_path) as of:
            for one in of(material):
                pages.place(made, "apao", *one)
        made.write(tmp_path)
        return made

    first = report()
    assert drawn == [7.0, 3.3] and len(first.files) == 6
    assert report().files == first.files and len(drawn) == 2
    (tmp_path / "apao/figures/apao-curves-ml-100k.svg").write_bytes(b"y")
    assert report().files == first.files and len(drawn) == 4, "a file that is not what was drawn"
    monkeypatch.setattr(Chart, "csv", "other")
    report()
    assert len(drawn) == 6
