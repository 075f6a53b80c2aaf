"""One page of HTML out of several Markdown reports: complete in itself, with pictures inside and tables to sort."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape, unescape
from itertools import zip_longest
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from xml.etree.ElementTree import Element, SubElement

from markdown import Markdown
from markdown.inlinepatterns import SimpleTagInlineProcessor
from markdown.serializers import to_html_string
from markdown.treeprocessors import Treeprocessor

from genrec_bench.core.errors import UserError

STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
# The page may fetch nothing: what it shows is inside, whatever a report says.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
LISTED = ("h2", "h3")
LONG = 20  # characters of a cell that is not to be broken into a word a line
PLAIN = " !$'()*+,-./:;=?@[]^_`{|}~"  # what a data URI may hold as it is


@dataclass
class _Part:
    """One Markdown file as a tree of HTML elements.

    anchor: its id in the page. headings: (tag, id, text) in order. pictures: the file inside the page by the path
    without suffix, and its id.
    """

    name: str
    path: Path
    anchor: str
    markdown: Markdown
    tree: Element
    headings: list[tuple[str, str, str]] = field(default_factory=list)
    pictures: dict[Path, tuple[Path, str]] = field(default_factory=dict)

    def beside(self, link: str) -> Path:
        """The file that a relative link of this part means."""
        return (self.path.parent / unquote(urlsplit(link).path)).resolve()

    def html(self) -> str:
        """The part as HTML."""
        text = self.markdown.serializer(self.tree)
        for step in self.markdown.postprocessors:
            text = step.run(text)
        return text


def html_page(title: str, parts: Sequence[tuple[str, Path]]) -> str:
    """One HTML page made from Markdown files, each given as (name, path), in their order.

    The page needs nothing else and fetches nothing. A picture goes inside, as SVG where one lies beside the PNG. Links
    between the files become links inside the page, links to other local files plain text; links to the web stay. Of
    raw HTML only <u> is kept. Equal files give equal bytes.
    Raises: UserError for a Markdown file or a picture that does not exist, and where there are no parts.
    """
    if not parts:
        raise UserError("no report to make a page of. Render one first: `python benchmark.py report --suite NAME`.")
    ids: set[str] = set()
    read = [_part(name, path, ids) for name, path in parts]
    for part in read:
        _pictures(part, ids)
        _tables(part)
    for part in read:
        _links(part, read)
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en-GB">', "<head>", '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">', f"<title>{escape(title)}</title>",
        '<link rel="icon" href="data:,">', f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>", "</head>", "<body>",
        to_html_string(_contents(title, read)), "<main>", *(part.html() for part in read), "</main>",
        '<a class="to-contents" href="#contents">Contents</a>',
        f"<script>\n{SCRIPT.read_text(encoding='utf-8')}</script>", "</body>", "</html>", ""])


def _part(name: str, path: Path, ids: set[str]) -> _Part:
    """Read one file and give its headings ids, as GitHub names them, after the part's own."""
    if not path.is_file():
        raise UserError(f"no report {path}. Render it first: `python benchmark.py report --suite NAME`.")
    parser = _parser()
    parser.convert(path.read_text(encoding="utf-8"))
    part = _Part(name, path.resolve(), _unique(_slug(name) or "part", ids), parser, parser.treeprocessors["kept"].tree)
    part.tree.tag = "article"
    part.tree.set("id", part.anchor)
    if part.tree.find("h1") is None:
        heading = Element("h1")
        heading.text, heading.tail = escape(name), "\n"
        part.tree.insert(0, heading)
    for heading in (element for element in part.tree.iter() if element.tag in HEADINGS):
        text = "".join(heading.itertext()).strip()
        heading.set("id", _unique(f"{part.anchor}.{_slug(unescape(text))}", ids))
        part.headings.append((heading.tag, heading.get("id"), text))
    return part


class _Kept(Treeprocessor):
    """Keeps the finished tree, for what needs all parts."""

    def run(self, root: Element) -> None:
        """Remember the tree and leave it as it is."""
        self.tree = root


def _parser() -> Markdown:
    """Markdown as our reports write it: tables, code, lists with two spaces, <u>, and no other HTML."""
    parser = Markdown(extensions=["tables", "fenced_code"], output_format="html", tab_length=2)
    parser.preprocessors.deregister("html_block")
    for name in ("html", "entity", "automail"):
        parser.inlinePatterns.deregister(name)
    parser.inlinePatterns.register(SimpleTagInlineProcessor(r"(<u>)(.+?)</u>", "u"), "underline", 90)
    parser.treeprocessors.register(_Kept(parser), "kept", -1)
    return parser


def _slug(text: str) -> str:
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


def _unique(wanted: str, ids: set[str]) -> str:
    """The id, with the first number after it that makes it new."""
    name, count = wanted, 0
    while name in ids:
        count += 1
        name = f"{wanted}-{count}"
    ids.add(name)
    return name


def _pictures(part: _Part, ids: set[str]) -> None:
    """Put pictures inside; a paragraph that is one picture becomes a figure, and the line under it the caption."""
    for image in list(part.tree.iter("img")):
        source, alt = image.get("src", ""), image.get("alt", "")
        if urlsplit(source).scheme:  # would be fetched: a link instead
            image.tag, image.text = "a", escape(alt or source)
            image.attrib = {"href": source}
            continue
        path = _best(part.beside(source))
        if path is None:
            raise UserError(f"{part.path}: the picture {source} does not exist. Render the report again.")
        name = _unique(f"{part.anchor}.{_slug(path.stem)}", ids)
        part.pictures[_stem(path)] = path, name
        data, width, height = _embedded(path)
        image.attrib = {"id": name, "src": data, "alt": alt, "loading": "lazy", "decoding": "async"}
        if width:
            image.attrib |= {"width": str(width), "height": str(height)}
    for parent in list(part.tree.iter()):
        for element, following in zip_longest(list(parent), list(parent)[1:]):
            if element.tag == "p" and [child.tag for child in element] == ["img"] and not _words(element):
                element.tag = "figure"
                if following is not None and _is_caption(following, element[0].get("id"), part):
                    following.tag = "figcaption"
                    parent.remove(following)
                    element.append(following)


def _words(element: Element) -> str:
    return "".join(element.itertext()).strip()


def _is_caption(element: Element, picture: str, part: _Part) -> bool:
    """Whether a paragraph links to the file of a picture, given by its id."""
    linked = [part.pictures.get(_stem(part.beside(link.get("href", "")))) for link in element.iter("a")]
    return element.tag == "p" and picture in [found[1] for found in linked if found]


def _stem(path: Path) -> Path:
    """The path without its suffix: what the PNG and the SVG of a picture share."""
    return path.parent / path.stem


def _best(path: Path) -> Path | None:
    """The SVG beside a picture, which is smaller here and stays sharp, or else the picture; None without either."""
    return next((p for p in (path.with_suffix(".svg"), path) if p.is_file()), None)


def _embedded(path: Path) -> tuple[str, int, int]:
    """A picture as a data URI, and its width and height in CSS pixels, 0 where unknown."""
    if path.suffix == ".svg":  # percent signs take a fifth less than base64
        text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
        size = re.search(r'<svg[^>]* width="([\d.]+)pt" height="([\d.]+)pt"', text)
        width, height = (round(float(value) * 4 / 3) for value in size.groups()) if size else (0, 0)
        return f"data:image/svg+xml;charset=utf-8,{quote(text, safe=PLAIN)}", width, height
    content = path.read_bytes()
    is_png = content.startswith(b"\x89PNG\r\n") and len(content) > 24
    width, height = struct.unpack(">II", content[16:24]) if is_png else (0, 0)
    kind = path.suffix.lower().lstrip(".").replace("jpg", "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}", width, height


def _tables(part: _Part) -> None:
    """Put each table into a box that scrolls, named by its heading; numbers and long words get a class."""
    heading = part.name
    for parent in list(part.tree.iter()):
        for place, element in enumerate(parent):
            if element.tag in HEADINGS:
                heading = _words(element)
            if element.tag != "table":
                continue
            box = Element("div", {"class": "table", "role": "region", "tabindex": "0",
                                  "aria-label": f"Table: {unescape(heading)}"})
            box.append(element)
            box.tail, element.tail = element.tail, None
            parent[place] = box
            for cell in element.iter():
                style = cell.attrib.pop("style", "")
                if cell.tag == "th":
                    cell.set("scope", "col")
                if "right" in style:
                    cell.set("class", "number")
                elif cell.tag == "td" and len(_words(cell)) > LONG:
                    cell.set("class", "long")


def _links(part: _Part, parts: Sequence[_Part]) -> None:
    """Turn links to other parts and to pictures into links inside the page, and to other files into text."""
    headings = {name for other in parts for _, name, _ in other.headings}
    pictures = {stem: found for other in parts for stem, found in other.pictures.items()}
    anchors = {other.path: other.anchor for other in parts}
    for link in part.tree.iter("a"):
        href = unescape(link.get("href", ""))
        if urlsplit(href).scheme in ("http", "https", "mailto"):
            continue
        path = part.beside(href) if urlsplit(href).path else part.path
        link.attrib = {}
        if path in anchors:
            inside = f"{anchors[path]}.{unquote(urlsplit(href).fragment)}"
            link.set("href", f"#{inside if inside in headings else anchors[path]}")
        elif _stem(path) in pictures:
            source, name = pictures[_stem(path)]
            link.set("href", f"#{name}")
            if source == path:
                link.set("data-save", path.name)
        else:
            link.tag = "span"
            link.attrib = {"class": "file", "title": f"A file beside the report: {href}"}


def _contents(title: str, parts: Iterable[_Part]) -> Element:
    """The table of contents: for each part its headings of the second and third level."""
    nav = Element("nav", {"id": "contents", "aria-label": "Contents"})
    SubElement(nav, "p", {"class": "title"}).text = escape(title)
    for part in parts:
        listed = [heading for heading in part.headings if heading[0] in LISTED]
        if not listed:
            _entry(nav, "p", part.anchor, part.name)
            continue
        box = SubElement(nav, "details", {"name": "part"})
        _entry(box, "summary", part.anchor, part.name)
        outer = inner = SubElement(box, "ul")
        for tag, name, text in listed:
            if tag == "h2":
                entry, inner = _entry(outer, "li", name, text), None
            elif inner is None:
                inner = SubElement(entry, "ul")
            if tag == "h3":
                _entry(inner, "li", name, text)
    return nav


def _entry(parent: Element, tag: str, anchor: str, text: str) -> Element:
    entry = SubElement(parent, tag)
    SubElement(entry, "a", {"href": f"#{anchor}"}).text = text
    return entry
