"""The tables of a page as LaTeX: signs by hand, and that it compiles where LaTeX is installed."""

import shutil
import subprocess

import pytest

from genrec_bench.reporting import latex
from tests.golden_report import FOLDER

PAGE = '''# Title

## Data, profile quick

**TIGER**

| Method | N@10 | Said |
|:-------|-----:|-----:|
| A \\| B | **-0.5** | "no difference" |

| Method | p |
|:--|--:|
| [x](y.csv) `--set` | 1e-4 [-2, -1] |

## Nothing

Text.
'''


def test_quotes_minus_signs_and_marks_by_hand():
    made = latex.of_page(PAGE, "Report", "apao")
    assert list(made) == ["data-profile-quick"]
    text = made["data-profile-quick"]
    assert r"\caption{Data, profile quick: Report.}" in text and r"\begin{tabular}{lrr}" in text
    assert r"A $|$ B & \textbf{$-$0.5} & ``no difference'' \\" in text
    assert r"x \texttt{--set} & 1e-4 [$-$2, $-$1] \\" in text
    assert all(f"{{tab:apao-data-profile-quick{end}}}" in text for end in ("", "-2"))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_every_table_of_a_report_compiles(tmp_path):
    parts = [text for page in ("report", "appendix")
             for text in latex.of_page((FOLDER / "apao" / f"{page}.md").read_text(), "APAO", page).values()]
    parts.append((FOLDER / "papers/apao/table-1.tex").read_text())
    (tmp_path / "all.tex").write_text("\n".join([
        r"\documentclass[twocolumn]{article}\usepackage[utf8]{inputenc}\usepackage{booktabs,graphicx}",
        r"\begin{document}", *(part.replace(r"\end{table*}", "\\end{table*}\n\\clearpage") for part in parts),
        r"\end{document}"]))
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
