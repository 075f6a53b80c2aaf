"""The prose of reports: jinja2 templates in `templates/`, filled with tables and numbers."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(name: str, **facts: Any) -> str:
    """A template filled with facts, without empty lines in a row, at the beginning or at the end.

    A fact that the template names and nobody gives is an error (jinja2.UndefinedError).
    """
    text = _environment().get_template(f"{name}.md.j2").render(**facts)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +$", "", text, flags=re.M)).strip()


def said(name: str, macro: str, *facts: Any) -> str:
    """What a macro of a template says of some facts, on one line."""
    return _line(getattr(_environment().get_template(f"{name}.md.j2").module, macro)(*facts))


def _line(text: str) -> str:
    return " ".join(text.split())


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # no command but a report needs it

    made = Environment(loader=FileSystemLoader(Path(__file__).with_name("templates")), undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.do"])
    made.filters["line"] = _line
    return made
