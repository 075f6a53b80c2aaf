"""The README's part about training-free rows; `python -m tests.readme_part` fills it from reports/training-free.md."""

from __future__ import annotations

from pathlib import Path

from genrec_bench.reporting.tables import pipe

ROOT = Path(__file__).resolve().parents[1]
README, PAGE = ROOT / "README.md", ROOT / "reports" / "training-free.md"
BEGIN, END = "<!-- training-free: begin -->\n", "<!-- training-free: end -->"
COLUMNS = (0, 1, 2, 4, 5, 7, 9)  # of the page's first table: no Recall@10, and of the differences the like-for-like one


def readme_part(page: str) -> str:
    """The first sentence of the page and its first table, shorter and without intervals."""
    lines = page[page.index("\n|") + 1:].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:lines.index("")]]
    short = [[row[i].partition(" [")[0] for i in COLUMNS] for row in rows]
    table = pipe([header[i] for i in COLUMNS], short, numeric_from=len(COLUMNS))
    return (f"**{page.split('**')[1]}** How this was measured, on which test rows, and what it does not show: "
            f"[reports/training-free.md](reports/training-free.md).\n\n{table}\n\n")


def between(readme: str) -> str:
    """What stands between the marks."""
    return readme.split(BEGIN)[1].split(END)[0]


def main() -> None:
    """Fill the README's part."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}{readme_part(PAGE.read_text(encoding='utf-8'))}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
