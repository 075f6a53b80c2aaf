"""Tables as LaTeX with the rules of booktabs, to be pasted into a paper."""

from __future__ import annotations

from collections.abc import Sequence

NEEDS = "% needs \\usepackage{booktabs,graphicx}"
SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
           "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "—": "---",
           "−": "$-$", "→": r"$\rightarrow$", "Δ": r"$\Delta$", "λ": r"$\lambda$", "β": r"$\beta$", "η": r"$\eta$",
           "τ": r"$\tau$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "†": r"\dag{}", "<": "$<$", ">": "$>$",
           "|": "$|$", '"': "''"}


def escape(text: str) -> str:
    """Plain text as LaTeX; other letters than ASCII are left to UTF-8."""
    return "".join(SPECIAL.get(c, c) for c in text)


def tabular(header: Sequence[str], rows: Sequence[Sequence[str]], *, labels: int) -> str:
    """One tabular over the whole width; cells are LaTeX already. labels: leading columns that are names."""
    lines = [_line(header), r"\midrule", *(_line(row) for row in rows)]
    columns = "l" * labels + "r" * (len(header) - labels)
    return "\n".join([r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines,
                      r"\bottomrule", r"\end{tabular}}"])


def _line(cells: Sequence[str]) -> str:
    first = cells[0] if cells and cells[0][:1] not in ("[", "*") else "{}" + cells[0]  # no argument of the line before
    return " & ".join([first, *cells[1:]]) + r" \\"


def table(caption: str, label: str, parts: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    """One float over both columns of a page. parts: (heading, tabular) one below the other; notes: plain text."""
    lines = [r"\begin{table*}[t]", r"\centering", rf"\caption{{{escape(caption)}}}", rf"\label{{{label}}}"]
    for heading, body in parts:
        lines += [rf"\par\medskip\textit{{{escape(heading)}}}\par\smallskip"] if heading else []
        lines.append(body)
    if notes:
        lines.append(r"\par\medskip\parbox{\textwidth}{\footnotesize " + r"\par ".join(map(escape, notes)) + "}")
    return "\n".join([*lines, r"\end{table*}"])
