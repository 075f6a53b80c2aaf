"""The README's parts that come from reports; `python -m tests.readme_part` fills them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from genrec_bench.reporting.tables import pipe

ROOT = Path(__file__).resolve().parents[1]
README, REPORTS = ROOT / "README.md", ROOT / "reports"
GAIN = "Paper's gain, %"
KNOWN = ("Comparison", "Data, profile", "n", "Difference, % [95%]", "Detectable, %", GAIN, "Verdict")
COLUMNS = (0, 1, 2, 4, 5, 7, 9)  # of the first table about rows without training: no Recall@10, one of the differences


def table_of(page: str, heading: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows of the first table behind a heading."""
    after = page[page.index(heading):]
    lines = after[after.index("\n|") + 1:].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:lines.index("")]]
    return header, rows


def training_free(page: str) -> str:
    """The first sentence of the page and its first table, shorter and without intervals."""
    header, rows = table_of(page)
    short = [[row[i].partition(" [")[0] for i in COLUMNS] for row in rows]
    table = pipe([header[i] for i in COLUMNS], short, numeric_from=len(COLUMNS))
    return (f"**{page.split('**')[1]}** How this was measured, on which test rows, and what it does not show: "
            f"[reports/training-free.md](reports/training-free.md).\n\n{table}\n\n")


def known(*pages: str) -> str:
    """The declared comparisons of the profile `standard`, as the reports have them."""
    tables = [table_of(page, "\n## Declared comparisons") for page in pages]
    found = [dict(zip(header, row, strict=True)) for header, rows in tables for row in rows]
    rows = [{GAIN: "–", **one} for one in found if one["Data, profile"].endswith(", standard")]  # not all have a paper
    return pipe(KNOWN, [[one[name] for name in KNOWN] for one in rows], numeric_from=2) + "\n\n"


PARTS: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "training-free": (training_free, ("training-free.md",)), "known": (known, ("apao/report.md", "bear-sid/report.md"))}


def parts(reports: Path = REPORTS) -> dict[str, str]:
    """Every part, from the reports as they are."""
    return {name: make(*((reports / page).read_text(encoding="utf-8") for page in pages))
            for name, (make, pages) in PARTS.items()}


def between(readme: str, name: str) -> tuple[str, str, str]:
    """What stands before a part's marks, between them and behind them, the marks left where they are."""
    begin, end = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    before, rest = readme.split(f"{begin}\n")
    part, after = rest.split(end)
    return f"{before}{begin}\n", part, f"{end}{after}"


def main() -> None:
    """Fill the README's parts."""
    text = README.read_text(encoding="utf-8")
    for name, part in parts().items():
        before, _, after = between(text, name)
        text = f"{before}{part}{after}"
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
