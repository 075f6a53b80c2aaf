"""How every figure looks: styles of methods from `styles.toml`, and bytes that are equal for equal records."""

from __future__ import annotations

import io
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from genrec_bench.core.files import write_atomically
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.rows import Row, objective_of

STYLES = Path(__file__).with_name("styles.toml")
COLUMN, TEXT = 3.3, 7.0  # inches of a column and of the text of a page
SMALLEST = 7.0  # points of the smallest type at these widths
FONT = "Figure Sans"  # the letters and signs of our texts out of DejaVu Sans, which comes with matplotlib
LETTERS = (*range(0x20, 0x250), *range(0x370, 0x400), *range(0x2000, 0x2300))  # others are taken from DejaVu Sans
# Text in SVG stays text, to be searched and edited; PDF has TrueType fonts inside, as publishers ask for.
SETTINGS = {"svg.hashsalt": "genrec-bench", "svg.fonttype": "none", "pdf.fonttype": 42, "font.family": "sans-serif",
            "font.sans-serif": [FONT, "DejaVu Sans", "Verdana", "Arial", "sans-serif"], "font.size": SMALLEST,
            "axes.titlesize": 7.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
            "axes.labelsize": SMALLEST, "xtick.labelsize": SMALLEST, "ytick.labelsize": SMALLEST,
            "legend.fontsize": SMALLEST, "figure.titlesize": 8.0, "lines.linewidth": 1.1, "lines.markersize": 4.2,
            "axes.grid": True, "grid.color": "0.9", "grid.linewidth": 0.5, "axes.axisbelow": True,
            "axes.edgecolor": "0.5", "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
            "xtick.major.size": 2.0, "ytick.major.size": 2.0, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
            "legend.frameon": False, "legend.handlelength": 2.8, "legend.columnspacing": 1.2,
            "legend.labelspacing": 0.35, "savefig.dpi": 200}
METADATA = {"png": {"metadata": {"Software": None}}, "svg": {"metadata": {"Date": None, "Creator": None}},
            "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}}}
Look = tuple[str, str, tuple[float, ...]]  # colour, marker, dashes


@contextmanager
def own_style() -> Iterator[None]:
    """Our own style whatever the user's matplotlib settings are; they are as before afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        _add_fonts()
        yield


@cache
def _add_fonts() -> None:
    """Make FONT known, in a file of matplotlib's cache: to cut the letters of each PDF out of the whole of DejaVu Sans
    takes longer than all drawing."""
    from fontTools import subset
    from matplotlib.font_manager import fontManager

    for weight in ("", "-Bold"):
        path = Path(matplotlib.get_cachedir(), f"figure-sans-{matplotlib.__version__}{weight}.ttf")
        if not path.exists():
            options = subset.Options(layout_features=[], drop_tables=["GSUB", "GPOS", "GDEF", "FFTM"])
            font = subset.load_font(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans{weight}.ttf", options)
            subsetter = subset.Subsetter(options)
            subsetter.populate(unicodes=LETTERS)
            subsetter.subset(font)
            for name in font["name"].names:
                name.string = str(name).replace("DejaVu Sans", FONT).replace("DejaVuSans", FONT.replace(" ", ""))
            buffer = io.BytesIO()
            font.save(buffer)
            write_atomically(path, buffer.getvalue())
        fontManager.addfont(path)


@cache
def styles() -> dict[str, Any]:
    """The file of styles."""
    return tomllib.loads(STYLES.read_text(encoding="utf-8"))


def styles_of_others() -> dict[str, Look]:
    """The styles of what is no method, such as verdicts, by name."""
    return {name: _look(entry) for name, entry in styles()["other"].items()}


def look(name: str) -> Look:
    """One of them."""
    return styles_of_others()[name]


def looks(blocks: Sequence[Block]) -> dict[str, Look]:
    """The style of every row of a report, by row key; no two rows of one backbone, and no two baselines, share one."""
    rows = {g.row.key: g.row for b in blocks for g in b.groups}
    every = styles()
    unknown = sorted({kind for part, kind in map(_kind, rows.values()) if kind not in every[part]})
    more = {kind: {"color": color, "marker": marker, "dashes": dashes} for kind, color, marker, dashes in
            zip(unknown, *(cycle(every["variants"][part]) for part in ("colors", "markers", "dashes")),
                strict=False)}
    names: dict[str, list[str]] = {}  # of each kind, in order: equal ones on two backbones look the same
    found = {}
    for key, row in rows.items():
        part, kind = _kind(row)
        name = (row.label or key).removeprefix(f"{row.spelling} + ")
        turns = names.setdefault(kind, [])
        turns += [name] * (name not in turns)
        found[key] = _variant(every[part].get(kind) or more[kind], turns.index(name))
    return found


def _kind(row: Row) -> tuple[str, str]:
    """The table of `styles.toml` and the name in it that a row goes by."""
    if row.baseline:
        return "baseline", row.baseline
    stages = " > ".join(" ".join(stage) for stage in row.stages)
    return "objective", stages if stages in styles()["objective"] else objective_of(row)


def _variant(own: dict[str, Any], turn: int) -> Look:
    """The kind's own style, or for its second and further rows one with another marker and other dashes."""
    if not turn:
        return _look(own)
    place, every = turn - 1, styles()["variants"]
    markers = [m for m in every["markers"] if m != own["marker"]]
    dashes = [d for d in every["dashes"] if d != own["dashes"]]  # both change until one list ends, then in other pairs
    shade, colour = (to_rgb(c) for c in (every["shades"][place % len(every["shades"])], own["color"]))
    mixed = to_hex([(1 - every["share"]) * c + every["share"] * s for c, s in zip(colour, shade, strict=True)])
    return _look({"color": mixed, "marker": markers[place % len(markers)],
                  "dashes": dashes[(place + place // len(markers)) % len(dashes)]})


def _look(entry: dict[str, Any]) -> Look:
    return entry["color"], entry["marker"], tuple(entry["dashes"])


def broken_label(label: str, width: int = 32) -> str:
    """A label in lines of about `width` characters; brackets that do not fit into a line start a new one."""
    lines = [""]
    for part in label.replace(" (", "\n(").split("\n"):
        joined = f"{lines[-1]} {part}".strip()
        lines[-1:] = [joined] if len(joined) <= width else [*lines[-1:], part] if lines[-1] else [part]
    return "\n".join(short for line in lines for short in textwrap.wrap(line, width, break_on_hyphens=False))


def image_bytes(figure: Figure, kinds: Sequence[str]) -> dict[str, bytes]:
    """The figure in some formats, without date, creator or version in the files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    # the layout's solver differs in the last bits from process to process, and SVG names clips by a hash of them
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine(None)  # one that does nothing makes each format draw twice
    for axes in figure.axes:
        axes.set_position([round(float(edge), 5) for edge in axes.get_position().bounds])
    result = {}
    for kind in kinds:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **METADATA[kind])
        result[kind] = buffer.getvalue()
    return result
