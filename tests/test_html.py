"""The leaderboard's page: well formed, complete in itself, and what a browser makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser
from typing import Any

import pytest

from genrec_bench.reporting.html import html_page
from genrec_bench.reporting.leaderboard import board
from genrec_bench.reporting.markdown import Source
from genrec_bench.results.records import RecordStore
from tests import golden_report

VOID = {"meta", "link", "br", "hr", "img", "input"}
LINKS = {"index.md": "Reports", "apao/report.md": "APAO <its report>"}


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


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Any]:
    folder = golden_report.stored_in(tmp_path_factory.mktemp("results"))
    return board(Source(RecordStore(folder).read_all(), folder).materials("all"))


def test_the_page_is_well_formed_and_fetches_nothing(data):
    page = Page(html_page("Title <&\">", data, LINKS))
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(ids) == len(set(ids)) and {e["aria-labelledby"] for e in page.all("section")} <= set(ids)
    assert page.all("title")[0]["text"] == page.all("h1")[0]["text"] == "Title <&\">"
    assert [(a["href"], a["text"]) for a in page.all("a")] == list(LINKS.items())
    assert not [e for e in page.elements if "src" in e] and [e["href"] for e in page.all("link")] == ["data:,"]
    assert not [name for e in page.elements for name in e if name.startswith("on")]
    assert "What is known" not in page.all("main")[0]["text"]


# In a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --disable-dev-shm-usage --virtual-time-budget=4000").split()
WATCH = """<head><script>window.wrong = [];
for (const kind of ["error", "securitypolicyviolation"])
  document.addEventListener(kind, (e) => wrong.push(e.message ?? e.blockedURI), true);
window.addEventListener("error", (e) => wrong.push(e.message));
console.error = console.warn = (...words) => wrong.push(words.join(" "));</script>"""
# Each step does something as a reader would, and what is then on the page is noted.
DRIVE = """<script>
const find = (what) => document.querySelector(what), every = (what) => [...document.querySelectorAll(what)];
const noted = {}, labels = () => every("tr.line button").map((button) => button.textContent);
const fields = () => Object.fromEntries(new FormData(form));
const note = (name) => { noted[name] = {
  labels: labels(), hash: location.hash,
  scores: every("tr.line").map((row) => row.cells[1].firstChild.textContent),
  blocks: every("tr.block b").map((title) => title.textContent), count: find("#count").textContent,
  sorted: every("[aria-sort]").map((head) => [head.textContent, head.ariaSort]).filter(([, sort]) => sort !== "none"),
  focus: document.activeElement.id, open: every("[aria-expanded=true]").map((button) => button.textContent),
  controls: every("[aria-controls]").every((button) => byId(button.getAttribute("aria-controls"))),
  detail: find(".runs")?.textContent ?? null, curves: every(".runs polyline").length, fields: fields() }; };
const type = (name, value) => { form.elements[name].value = value;
  form.elements[name].dispatchEvent(new Event("input", { bubbles: true })); };
const press = (what) => { find(what).focus(); document.activeElement.click(); };  // as Enter does on a button
const key = (name) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const go = (hash) => new Promise((done) => {
  window.addEventListener("hashchange", () => setTimeout(done), { once: true }); location.hash = hash; });
(async () => {
  note("start");
  for (const name of ["down", "up", "back"]) { press("#sort-ndcg"); note(name); }
  press("#sort-method"); note("words"); press("#sort-method"); press("#sort-method");
  type("group", "baselines"); note("baselines");
  type("group", ""); type("text", "ETA tiger"); note("searched");
  type("text", "no such"); note("nothing"); type("text", "");
  type("dataset", "ml-100k"); type("level", "id"); press("#sort-recall");
  const line = every("tr.line button").find((button) => button.textContent === "TIGER + APAO-Pointwise");
  press(`[id="${line.id}"]`); note("opened");
  const link = location.hash;
  key("Escape"); note("closed");
  find("tr.line td").click(); note("clicked"); find(".runs p").click(); note("inside"); key("Escape");
  await go("#"); note("empty"); await go(link); note("again");
  await go("#dataset=nowhere&level=id&colour=red&open=none"); note("odd");
  const requests = performance.getEntriesByType("resource").map(({ name }) => name)
    .filter((name) => !name.startsWith("data:"));
  const found = document.createElement("pre");
  found.id = "found";
  found.textContent = JSON.stringify({ ...noted, wrong, requests });
  document.body.append(found);
})();
</script></body>"""


@pytest.fixture(scope="module")
def browsed(data, tmp_path_factory) -> dict[str, Any]:
    """What a browser shows after each step of DRIVE."""
    if BROWSER is None:
        pytest.skip(f"no browser: looked for {', '.join(BROWSERS)}")
    folder = tmp_path_factory.mktemp("page")
    page = html_page("T", data, LINKS).replace("<head>", WATCH).replace("</body>", DRIVE)
    (folder / "page.html").write_text(page, encoding="utf-8")
    run = subprocess.run([BROWSER, *FLAGS, f"--user-data-dir={folder / 'user'}", "--dump-dom",
                          (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = [part.partition("</pre>")[0] for part in run.stdout.split('<pre id="found">')[1:]]
    assert found, run.stderr[-2000:]
    return json.loads(Page(f"<pre>{found[0]}</pre>").elements[0]["text"])


OFFICE, QUICK = "apao_office, profile paper", "ml-100k, profile quick"
POINT, CE, MSL, SASREC, KNN = ("TIGER + APAO-Pointwise", "TIGER + cross-entropy", "TIGER + MSL", "SASRec (RecBole, CE)",
                               "Item-kNN")


def test_a_browser_finds_nothing_wrong_and_fetches_nothing(browsed):
    assert browsed["wrong"] == [] and browsed["requests"] == []
    assert browsed["start"]["count"].startswith("6 of 6 lines.") and browsed["start"]["blocks"] == [OFFICE, QUICK]


def test_columns_sort_within_their_block(browsed):
    """Highest first, lowest first, the page's order; a row without a mean stays last."""
    start, down, up, back = (browsed[name] for name in ("start", "down", "up", "back"))
    assert [step["sorted"] for step in (start, down, up, back)] == [
        [], [["NDCG@10", "descending"]], [["NDCG@10", "ascending"]], []]
    assert down["labels"] == start["labels"] == back["labels"] and up["labels"][0] == CE and up["labels"][-1] == MSL
    assert up["labels"][1:-1] == down["labels"][1:-1][::-1]
    assert up["scores"][1:-1] == sorted(up["scores"][1:-1])
    assert {step["focus"] for step in (down, up, back)} == {"sort-ndcg"}
    assert browsed["words"]["labels"] == [CE, KNN, SASREC, POINT, CE, MSL]


def test_filters_and_search(browsed):
    assert sorted(browsed["baselines"]["labels"]) == [KNN, SASREC] and browsed["baselines"]["blocks"] == [QUICK]
    assert browsed["baselines"]["hash"] == "#group=baselines" and browsed["baselines"]["count"] == "2 of 6 lines. "
    assert browsed["searched"]["labels"] == [POINT]
    assert browsed["nothing"]["labels"] == [] and "Nothing fits" in browsed["nothing"]["count"]


def test_a_line_opens_and_escape_closes_it(browsed):
    opened, closed = browsed["opened"], browsed["closed"]
    assert opened["open"] == [POINT] and opened["controls"] and opened["focus"].startswith("line-")
    for words in ("objectives.1.eta = 1e-05", "ml-100k/", ".ranks.npz", "not recorded", "semantic IDs",
                  "APAO <its report>"):
        assert words in opened["detail"]
    assert opened["curves"] == 3  # validation, a line a seed; these records state no loss
    assert closed["open"] == [] and closed["detail"] is None and closed["focus"] == opened["focus"]
    assert browsed["clicked"]["open"] == browsed["inside"]["open"] != []  # a click inside leaves it open


def test_the_address_gives_the_same_view(browsed):
    opened, again = browsed["opened"], browsed["again"]
    assert browsed["empty"]["fields"] == browsed["start"]["fields"] and browsed["empty"]["open"] == []
    kept = ("labels", "sorted", "open", "detail", "fields", "hash", "count")
    assert {name: again[name] for name in kept} == {name: opened[name] for name in kept}
    assert again["fields"]["level"] == "id" and again["fields"]["dataset"] == "ml-100k"


def test_words_of_an_address_that_mean_nothing_are_left_out(browsed):
    odd = browsed["odd"]
    assert odd["fields"] == {**browsed["start"]["fields"], "level": "id"}
    assert len(odd["labels"]) == 6 and not odd["open"]
