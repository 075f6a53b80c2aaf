"""One HTML page of the leaderboard: complete in itself, with its data inside; a browser fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

# The page may fetch nothing: what it shows is inside, whatever a record says.
POLICY = ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
          "form-action 'none'")


def html_page(title: str, board: Mapping[str, Any], links: Mapping[str, str],
              claims: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page of a leaderboard.

    board: see `leaderboard.board`. links: files beside the page, with their titles. claims: what is known and what is
    not, each with `claim`, `about`, `estimate`, `interval` (a pair), `data`, `profile`, `seeds`, `answer` and
    `minimum_detectable`, such as `claims.lines` gives; fractions are printed with four decimals, texts as they are,
    None as a dash. Equal arguments give equal bytes.
    """
    place = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    place.filters["told"] = _told
    return place.get_template("page.html").render(title=title, policy=POLICY, links=links, claims=claims, board=board,
                                                  data=embedded({**board, "links": links}))


def embedded(data: Any) -> str:
    """Data as JSON that may stand in a script element: no character of it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _told(value: Any) -> str:
    """A number with its sign, a pair as an interval, a text as it is."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_told, value))}]"
    return "–" if value is None else f"{value:+.4f}" if isinstance(value, float) else str(value)
