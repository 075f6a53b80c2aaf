"""The page of all reports: well formed, complete in itself, links that lead somewhere, tables that sort."""

import base64
import json
import random
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from genrec_bench.core.errors import UserError
from genrec_bench.reporting import markdown
from genrec_bench.reporting.html import html_page
from genrec_bench.results.records import RecordStore
from tests import golden_report

VOID = {"meta", "link", "img", "br", "hr", "input"}
SVG = ('<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt">\n'
       ' <path id="a" d="M 0 0\nL 9 9" style="fill: #ff0000"/>\n <text>100 % "ü" &amp; \'x\'</text>\n</svg>\n')
SVG_URI = "data:image/svg+xml;charset=utf-8,"
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 30, 20) + bytes(9)
REPORT = """# APAO: the report

Paper: [web](https://example.org/a?b=1&c=2), [index](../index.md), [printed](tables.md#table-1), [gone](tables.md#no),
[the same page](#the-answer), [file](tables/results.csv), [code](javascript:alert(1)), [top](/).

## The answer

Under **<u>0.5</u>**, a < b & c, <script>alert(1)</script> and <img src=x onerror=alert(1)>, `<u>code</u>`, split_max_k.

![A figure](figures/one.png)

The figure's caption ([SVG](figures/one.svg), [site](https://example.org/)).

![Only a PNG](figures/two.png)

<div onclick="alert(1)">
Not a caption
</div>

### Results

| Method | NDCG@10 |
|:-------|--------:|
| a \\| b | **0.2** |

### Results
"""


INDEX = "# Reports\n\n- [APAO](apao/report.md)\n  - [results](apao/report.md#results-1)\n"


class Page(HTMLParser):
    """What the tests ask of a page: tags balanced on the way, and the elements in order with their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags: str) -> list[dict]:
        return [e for e in self.elements if e["tag"] in tags]


@pytest.fixture
def parts(tmp_path) -> list[tuple[str, Path]]:
    """Three files with pictures beside them."""
    figures = tmp_path / "apao" / "figures"
    figures.mkdir(parents=True)
    (figures / "one.svg").write_text(SVG, encoding="utf-8")
    (figures / "one.png").write_bytes(PNG)
    (figures / "two.png").write_bytes(PNG)
    (tmp_path / "index.md").write_text(INDEX)
    (tmp_path / "apao" / "report.md").write_text(REPORT, encoding="utf-8")
    (tmp_path / "apao" / "tables.md").write_text("## Table 1\n\n## Results\n\n```text\na <b>\n```\n")
    return [("Reports", tmp_path / "index.md"), ("APAO", tmp_path / "apao" / "report.md"),
            ("APAO: tables", tmp_path / "apao" / "tables.md")]


def check_structure(page: Page) -> None:
    """Ids unique, links inside the page lead to an id, nothing is fetched, every table has one row of headers."""
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(ids) == len(set(ids))
    targets = [a["href"] for a in page.all("a")]
    assert all(t.startswith(("#", "http://", "https://", "mailto:")) for t in targets)
    assert {unquote(t[1:]) for t in targets if t.startswith("#")} <= set(ids)
    assert all(e["src"].startswith("data:") for e in page.elements if "src" in e)
    assert all(e["href"] == "data:," for e in page.all("link"))
    assert not [name for e in page.elements for name in e if name.startswith("on")]
    assert len(page.all("table")) == len(page.all("thead")) == len(page.all("tbody"))
    assert all(th.get("scope") == "col" for th in page.all("th"))
    assert all(e["id"] for e in page.all("h1", "h2", "h3", "h4"))


def test_small_page_is_well_formed(parts):
    page = Page(html_page("Title <&\">", parts))
    check_structure(page)
    assert page.all("title")[0]["text"] == page.all("p")[0]["text"] == "Title <&\">"
    assert [e["id"] for e in page.all("article")] == ["reports", "apao", "apao-tables"]
    assert [e["text"] for e in page.all("h1")] == ["Reports", "APAO: the report", "APAO: tables"]
    assert len(page.all("nav")) == len(page.all("main")) == len(page.all("script")) == len(page.all("style")) == 1


def test_page_of_a_whole_report(tmp_path):
    records = RecordStore(golden_report.stored_in(tmp_path / "results"))
    made, _ = markdown.build("apao", markdown.Source(records.read_all(), records.root))
    made.write(tmp_path)
    files = [tmp_path / "index.md", *sorted(tmp_path.glob("*/*.md"))]
    text = html_page("Reports", [(f"{p.parent.name} {p.stem}", p) for p in files])
    page = Page(text)
    check_structure(page)
    pictures = sum(p.read_text(encoding="utf-8").count("![") for p in files)
    assert len(page.all("img")) == pictures > 0
    assert all(e["src"].startswith(SVG_URI) and int(e["width"]) > 100 for e in page.all("img"))
    assert len(page.all("table")) == sum(len(re.findall(r"^\|:?-", p.read_text(encoding="utf-8"), re.M)) for p in files)


def test_equal_files_give_equal_bytes(parts):
    assert html_page("T", parts) == html_page("T", parts)


def test_links(parts):
    found = [(a["text"], a["href"]) for a in Page(html_page("T", parts)).all("a")]
    links = dict(pair for pair in found if pair[0] not in ("Results", "APAO"))
    assert links["web"] == "https://example.org/a?b=1&c=2"
    assert links["index"] == "#reports"
    assert links["printed"] == "#apao-tables.table-1"
    assert links["gone"] == "#apao-tables"  # the heading is not there: the part is
    assert links["the same page"] == "#apao.the-answer"
    assert links["results"] == "#apao.results-1"
    assert links["SVG"] == "#apao.one"
    assert not {"file", "code"} & links.keys()


def test_other_files_are_text_that_names_them(parts):
    page = Page(html_page("T", parts))
    assert [(e["text"], e["title"]) for e in page.all("span")] == [
        ("file", "A file beside the report: tables/results.csv"),
        ("code", "A file beside the report: javascript:alert(1)"), ("top", "A file beside the report: /")]


def test_headings_have_ids_of_their_own_in_every_part(parts):
    ids = [e["id"] for e in Page(html_page("T", parts)).all("h1", "h2", "h3")]
    assert ids == ["reports.reports", "apao.apao-the-report", "apao.the-answer", "apao.results", "apao.results-1",
                   "apao-tables.apao-tables", "apao-tables.table-1", "apao-tables.results"]


def test_parts_of_one_name_are_told_apart(parts):
    page = Page(html_page("T", [("A", parts[0][1]), ("A", parts[2][1]), ("a-1", parts[2][1])]))
    check_structure(page)
    assert [e["id"] for e in page.all("article")] == ["a", "a-1", "a-1-1"]


def test_contents_lists_second_and_third_level(parts):
    text = html_page("T", parts)
    nav = Page(text[text.index("<nav"):text.index("</nav>") + 6])
    assert [(a["href"], a["text"]) for a in nav.all("a")] == [
        ("#reports", "Reports"), ("#apao", "APAO"), ("#apao.the-answer", "The answer"), ("#apao.results", "Results"),
        ("#apao.results-1", "Results"), ("#apao-tables", "APAO: tables"), ("#apao-tables.table-1", "Table 1"),
        ("#apao-tables.results", "Results")]
    assert len(nav.all("details")) == 2 and len(nav.all("ul")) == 3  # the third holds the two of the third level


def test_third_level_without_a_second_is_listed(tmp_path):
    (tmp_path / "a.md").write_text("# A\n\n### Third\n\n### Fourth\n\n## Second\n")
    text = html_page("T", [("A", tmp_path / "a.md")])
    assert [a["text"] for a in Page(text).all("a")] == ["A", "Third", "Fourth", "Second", "Contents"]


def test_of_html_only_underlining_is_kept(parts):
    text = html_page("T", parts)
    page = Page(text)
    assert [e["text"] for e in page.all("u")] == ["0.5"]
    answer = next(e["text"] for e in page.all("p") if e["text"].startswith("Under"))
    assert answer == ("Under 0.5, a < b & c, <script>alert(1)</script> and <img src=x onerror=alert(1)>, "
                      "<u>code</u>, split_max_k.")
    assert not page.all("div")[0].keys() - {"tag", "text", "class", "role", "tabindex", "aria-label"}
    assert '<div onclick="alert(1)">\nNot a caption\n</div>' in [e["text"] for e in page.all("p")]
    assert [e["text"].strip() for e in page.all("pre")] == ["a <b>"]
    assert [e["text"] for e in page.all("td")] == ["a | b", "0.2"]


def test_pictures_go_inside_as_svg_where_there_is_one(parts):
    page = Page(html_page("T", parts))
    first, second = page.all("img")
    assert unquote(first["src"].removeprefix(SVG_URI)) == re.sub(r"\s+", " ", SVG)
    assert not set('#"<>\n') & set(first["src"])
    assert (first["width"], first["height"], first["alt"], first["loading"]) == ("96", "48", "A figure", "lazy")
    assert base64.b64decode(second["src"].removeprefix("data:image/png;base64,")) == PNG
    assert (second["width"], second["height"]) == ("30", "20")
    assert len(page.all("figure")) == 2
    assert [e["text"] for e in page.all("figcaption")] == ["The figure's caption (SVG, site)."]
    assert [a["data-save"] for a in page.all("a") if "data-save" in a] == ["one.svg"]


def test_pictures_of_the_web_are_links(tmp_path):
    (tmp_path / "a.md").write_text("![badge](https://example.org/a.png)\n")
    page = Page(html_page("T", [("A", tmp_path / "a.md")]))
    assert not page.all("img")
    assert [a["text"] for a in page.all("a") if a["href"] == "https://example.org/a.png"] == ["badge"]


def test_errors_name_the_file(parts, tmp_path):
    with pytest.raises(UserError, match="no report to make a page of"):
        html_page("T", [])
    with pytest.raises(UserError, match=r"no report .*nothing\.md"):
        html_page("T", [("A", tmp_path / "nothing.md")])
    (tmp_path / "apao" / "figures" / "two.png").unlink()
    with pytest.raises(UserError, match=r"report\.md: the picture figures/two\.png does not exist"):
        html_page("T", parts)


# In a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --disable-dev-shm-usage --virtual-time-budget=2000").split()
NUMBERS = ["0.0301 ± 0.0017", "–", "**0.0476 ± 0.0008**", "1,234", "-0.5", "12.3 %", "1 of 3 †", "< 0.001",
           "−2e-3 (n=2)", "0.0301 ± 0.0001", "other settings", "– (0.0476, not run)",
           "+0.4 [0.1, 0.7]"]
DESCENDING = ["1,234", "12.3 %", "1 of 3 †", "+0.4 [0.1, 0.7]", "0.0476 ± 0.0008", "0.0301 ± 0.0017",
              "0.0301 ± 0.0001", "< 0.001", "−2e-3 (n=2)", "-0.5", "–", "other settings",
              "– (0.0476, not run)"]
ASCENDING = ["-0.5", "−2e-3 (n=2)", "< 0.001", "0.0301 ± 0.0017", "0.0301 ± 0.0001", "0.0476 ± 0.0008",
             "+0.4 [0.1, 0.7]", "1 of 3 †", "12.3 %", "1,234", "–", "other settings", "– (0.0476, not run)"]
WORDS = ["b", "–", "a 10", "964780a8a6", "a 9", "2.4.6", "2.13.0", "3.11.7"]
WATCH = """<head><script>window.wrong = [];
for (const kind of ["error", "securitypolicyviolation"])
  document.addEventListener(kind, (e) => wrong.push(e.message ?? e.blockedURI), true);
window.addEventListener("error", (e) => wrong.push(e.message));</script>"""
DRIVE = """<script>
const out = [...document.querySelectorAll("table")].map((table) => [...Array(4).keys()].map((n) => {
  const head = table.tHead.rows[0].cells[1];
  if (n) { head.querySelector("button").focus(); document.activeElement.click(); }
  return { state: head.ariaSort, focus: document.activeElement.tagName,
           cells: [...table.tBodies[0].rows].map((row) => row.cells[1].textContent),
           firsts: [...table.tBodies[0].rows].map((row) => row.cells[0].textContent) };
}));
const table = document.querySelector("table"), heads = table.tHead.rows[0].cells;
heads[1].querySelector("button").click();
heads[0].querySelector("button").click();
const states = [...heads].map((head) => head.ariaSort);
const found = document.createElement("pre");
found.id = "found";
found.textContent = JSON.stringify({ out, states, wrong, requests: performance.getEntriesByType("resource")
  .map((one) => one.name).filter((name) => !name.startsWith("data:")) });
document.body.append(found);
</script></body>"""


def column(cells: list[str]) -> str:
    return "\n".join(["| Row | Value |", "|:--|--:|", *(f"| {i} | {cell} |" for i, cell in enumerate(cells))])


def drawn_columns() -> list[list[str]]:
    """Columns drawn at random, with many equal numbers."""
    draw = random.Random(5)
    return [[f"{draw.randrange(-20, 20) / 10:.{draw.randrange(1, 4)}f}" for _ in range(25)] for _ in range(3)]


@pytest.fixture(scope="module")
def browsed(tmp_path_factory) -> dict:
    """What a browser shows after the second column's head of each table was pressed zero to three times."""
    if BROWSER is None:
        pytest.skip(f"no browser: looked for {', '.join(BROWSERS)}")
    folder = tmp_path_factory.mktemp("page")
    tables = [column(cells) for cells in (NUMBERS, WORDS, *drawn_columns())]
    (folder / "a.md").write_text("# A\n\n## B\n\n" + "\n\ntext\n\n".join(tables) + "\n", encoding="utf-8")
    page = html_page("T", [("A", folder / "a.md")])
    (folder / "page.html").write_text(page.replace("<head>", WATCH).replace("</body>", DRIVE), encoding="utf-8")
    run = subprocess.run([BROWSER, *FLAGS, f"--user-data-dir={folder / 'user'}", "--dump-dom",
                          (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = [e["text"] for e in Page(run.stdout).all("pre") if e.get("id") == "found"]
    assert found, run.stderr[-2000:]
    return json.loads(found[0])


def test_browser_finds_nothing_wrong_and_fetches_nothing(browsed):
    assert browsed["wrong"] == [] and browsed["requests"] == []


def test_browser_sorts_numbers_by_value(browsed):
    shown = browsed["out"][0]
    assert [s["state"] for s in shown] == ["none", "descending", "ascending", "none"]
    assert [s["cells"] for s in shown[1:3]] == [DESCENDING, ASCENDING]
    assert shown[0]["cells"] == shown[3]["cells"] == [cell.strip("*") for cell in NUMBERS]


def test_browser_sorts_words_naturally(browsed):
    shown = browsed["out"][1]
    assert [s["state"] for s in shown] == ["none", "ascending", "descending", "none"]
    ascending = ["2.4.6", "2.13.0", "3.11.7", "964780a8a6", "a 9", "a 10", "b"]
    assert [s["cells"] for s in shown[1:3]] == [[*ascending, "–"], [*ascending[::-1], "–"]]


def test_browser_keeps_the_order_of_equals(browsed):
    for cells, shown in zip(drawn_columns(), browsed["out"][2:], strict=True):
        rows = list(enumerate(cells))
        down = sorted(rows, key=lambda row: -float(row[1]))
        assert shown[1]["firsts"] == [str(i) for i, _ in down]
        assert shown[2]["firsts"] == [str(i) for i, _ in sorted(down, key=lambda row: float(row[1]))]
        assert shown[3]["firsts"] == [str(i) for i, _ in rows]


def test_browser_marks_one_column_and_its_head_takes_the_keyboard(browsed):
    assert browsed["states"] == ["descending", "none"]
    assert {s["focus"] for shown in browsed["out"] for s in shown[1:]} == {"BUTTON"}  # pressed by Enter, as any button
