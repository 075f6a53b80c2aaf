"""How every figure looks: colours and markers of methods, labels, and bytes that are equal for equal records."""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

import matplotlib
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from genrec_bench.reporting.load import Block
from genrec_bench.reporting.rows import objective_of

DPI = 120
ROW = 0.42  # inches of a method with a label of one or two lines
# DejaVu Sans comes with matplotlib. Text in SVG stays text, to be searched and edited; a viewer without the font takes
# the next one.
FONTS = ["DejaVu Sans", "Verdana", "Arial", "sans-serif"]
STYLE = {"svg.hashsalt": "genrec-bench", "svg.fonttype": "none", "font.family": "sans-serif",
         "font.sans-serif": FONTS, "font.size": 9.0, "axes.titlesize": 10.0,
         "axes.labelsize": 9.0, "legend.fontsize": 8.5, "figure.facecolor": "white", "savefig.facecolor": "white"}
# The palette "colorblind" of seaborn 0.13; as the colours below, safe for the colour-blind.
PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9")
# An objective has the same colour in every figure and on every backbone; baselines are grey, and markers tell rows of
# one colour apart.
BASELINES = {"item_knn": ("0.2", "o"), "popularity": ("0.6", "P"), "sasrec": ("0.45", "s"), "bert4rec": ("0.6", "D")}
GREYS = ("0.3", "0.5", "0.7")  # of other baselines
COLORS = {"cross_entropy": PALETTE[0], "msl": PALETTE[1], "s_dpo": PALETTE[2], "apao pairwise": PALETTE[3],
          "apao pointwise": PALETTE[4], "dpo": PALETTE[5], "dmpo": PALETTE[9], "bear": "#332288",
          "bear_beam": "#999933"}
OTHER_COLORS = ("#882255", "#44aa99", PALETTE[7])
MARKERS = "osD^vPX<>*"


@contextmanager
def own_style() -> Iterator[None]:
    """Our own style whatever the user's matplotlib settings are; they are as before afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**style.library["seaborn-v0_8-whitegrid"], **STYLE})
        yield


def looks(blocks: Sequence[Block]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every method of a report, by row key: the objective's colour, a marker of its own."""
    rows = {g.row.key: g.row for b in blocks for g in b.groups}
    others = sorted({objective_of(row) for row in rows.values() if row.backbone} - set(COLORS))
    colors = {**COLORS, **dict(zip(others, cycle(OTHER_COLORS)))}
    places = {name: place for place, name in enumerate(colors)}  # no two objectives of one look by colour alone
    turns: Counter[tuple[str | None, str]] = Counter()
    result = {}
    for key, row in rows.items():
        turn = turns[row.backbone, objective_of(row)]
        turns[row.backbone, objective_of(row)] += 1
        marker = MARKERS[(places.get(objective_of(row), 0) + turn) % len(MARKERS)]
        result[key] = (colors[objective_of(row)], marker) if row.backbone else \
            BASELINES.get(row.baseline, (GREYS[turn % len(GREYS)], marker))
    return result


def broken_label(label: str, width: int = 32) -> str:
    """A label in lines of about `width` characters; brackets that do not fit into a line start a new one."""
    lines = [""]
    for part in label.replace(" (", "\n(").split("\n"):
        joined = f"{lines[-1]} {part}".strip()
        lines[-1:] = [joined] if len(joined) <= width else [*lines[-1:], part] if lines[-1] else [part]
    return "\n".join(short for line in lines for short in textwrap.wrap(line, width, break_on_hyphens=False))


def image_bytes(figure: Figure) -> dict[str, bytes]:
    """The figure as "png" and "svg", without date, creator or version in the files."""
    FigureCanvasAgg(figure)
    # the layout's solver differs in the last bits from process to process, and SVG names clips by a hash of them
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position([round(float(edge), 5) for edge in axes.get_position().bounds])
    result = {}
    for kind, more in (("png", {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 1}}),
                       ("svg", {"metadata": {"Date": None, "Creator": None}})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, **more)
        result[kind] = buffer.getvalue()
    return result
