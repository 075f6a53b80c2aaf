"""Tables as LaTeX with the rules of booktabs, to be pasted into a paper; their cells are those of the Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

NEEDS = "% needs \\usepackage{booktabs,graphicx}"
SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
           "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "—": "---",
           "−": "$-$", "→": r"$\rightarrow$", "Δ": r"$\Delta$", "λ": r"$\lambda$", "β": r"$\beta$", "η": r"$\eta$",
           "τ": r"$\tau$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "†": r"\dag{}", "<": "$<$", ">": "$>$",
           "|": "$|$"}
INLINE = re.compile(r"\\([\\*<>`|])|\*\*(.+?)\*\*|<u>(.+?)</u>|`([^`]+)`|\[([^\]]+)\]\([^)]*\)")  # Markdown in a cell
MARKS = (r"\textbf{%s}", r"\underline{%s}", r"\texttt{%s}", "%s")


def escape(text: str) -> str:
    """Plain text as LaTeX, with opening and closing quotes, and a minus sign before a number; other letters than ASCII
    are left to UTF-8."""
    signed = re.sub(r"(?<![\w.^-])-(?=\d)", "−", re.sub(r'(^|[\s(\[])"', r"\1``", text).replace('"', "''"))
    return "".join(SPECIAL.get(c, c) for c in signed)


def inline(cell: str) -> str:
    """The Markdown of a cell as LaTeX."""
    made, end = [], 0
    for found in INLINE.finditer(cell):
        sign, *marked = found.groups()
        made += [escape(cell[end:found.start()]), escape(sign) if sign else
                 next(mark % inline(text) for mark, text in zip(MARKS, marked, strict=True) if text)]
        end = found.end()
    return "".join([*made, escape(cell[end:])])


def tabular(header: Sequence[str], rows: Sequence[Sequence[str]], *, labels: int) -> str:
    """One tabular over the whole width; cells are Markdown. labels: leading columns that are names."""
    lines = [_line(header), r"\midrule", *(_line(row) for row in rows)]
    columns = "l" * labels + "r" * (len(header) - labels)
    return "\n".join([r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines,
                      r"\bottomrule", r"\end{tabular}}"])


def _line(cells: Sequence[str]) -> str:
    first, *more = map(inline, cells)
    return " & ".join(["{}" * (first[:1] in ("[", "*")) + first, *more]) + r" \\"  # no argument of the line before


def table(caption: str, label: str, parts: Sequence[tuple[str, str]], notes: Sequence[str] = ()) -> str:
    """One float over both columns of a page. parts: (heading, tabular) one below the other; notes: plain text."""
    lines = [r"\begin{table*}[t]", r"\centering", rf"\caption{{{escape(caption)}}}", rf"\label{{{label}}}"]
    for heading, body in parts:
        lines += [rf"\par\medskip\textit{{{escape(heading)}}}\par\smallskip"] if heading else []
        lines.append(body)
    if notes:
        lines.append(r"\par\medskip\parbox{\textwidth}{\footnotesize " + r"\par ".join(map(escape, notes)) + "}")
    return "\n".join([*lines, r"\end{table*}"])


def of_page(text: str, title: str, name: str) -> dict[str, str]:
    """The tables of a page in Markdown as floats, by the heading that they stand under, as part of a file's name.

    title: of the page, which ends the captions. name: begins the labels.
    """
    found: dict[str, list[str]] = {}
    for section in re.split(r"^#+ ", text, flags=re.M)[1:]:
        heading = section.partition("\n")[0]
        slug = re.sub(r"[^a-z0-9.]+", "-", heading.lower()).strip("-")
        for block in re.findall(r"(?:^\|.*\n?)+", section, re.M):
            header, align, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
                                    for line in block.splitlines())
            number = len(found.setdefault(slug, [])) + 1
            body = tabular(header, rows, labels=sum(not cell.endswith(":") for cell in align))
            found[slug].append(table(f"{heading}: {title}.", f"tab:{name}-{slug}" + f"-{number}" * (number > 1),
                                     [("", body)]))
    return {slug: "\n\n".join([NEEDS, *made]) + "\n" for slug, made in found.items()}
