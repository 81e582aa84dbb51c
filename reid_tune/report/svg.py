"""Charts as inline SVG, with the colours as variables of the page's style sheet."""

import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from reid_tune.evaluation.plots import make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CARD", "COLOURS", "HEIGHT", "WIDTH", "render_svg"]

# Okabe and Ito's palette on a light page; markers and line styles are distinct without colours too.
COLOURS = {
    "ink": "#1b1b1f",
    "faint": "#8c8c94",
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#009e73",
    "pink": "#cc79a7",
}
CARD = "#fefefe"  # the page's background of charts
WIDTH, HEIGHT = 4.4, 2.9  # inches; about the size on a phone
_MIN_PIXELS, _MAX_PIXELS = 70, 110  # for an inch of a chart that is wider: a narrow page scrolls it


def render_svg(draw: Callable[["Axes"], None], description: str, height: float = HEIGHT, width: float = WIDTH) -> str:
    """Return a drawing as an SVG element of a page.

    Args:
        draw: Function that draws on the axes.
        description: Text for screen readers.
        height: Height in inches.
        width: Width in inches.
    """
    import matplotlib

    ink = COLOURS["ink"]
    settings = {"svg.fonttype": "none", "svg.hashsalt": "reid-tune", "text.parse_math": False, "font.size": 10}
    settings |= dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], ink)
    with matplotlib.rc_context(settings):
        figure, axes = make_figure(width, height)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=COLOURS["faint"], alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        file = io.StringIO()
        no_metadata = dict.fromkeys(["Creator", "Date", "Format", "Type"])
        figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    limits = f' style="min-width: {_MIN_PIXELS * width:.0f}px; max-width: {_MAX_PIXELS * width:.0f}px"'
    return _inline(file.getvalue(), description, limits if width > WIDTH else "")


def _inline(svg: str, description: str, limits: str) -> str:
    """Return an SVG file as an element of a page: sized by the page, in its colours, without ids that repeat."""
    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    body = re.sub(r'<g id="[^"]*"', "<g", re.sub(r"<style.*?</style>|font-family: [^;]*; ", "", body, flags=re.DOTALL))
    for name, colour in [*COLOURS.items(), ("card", CARD)]:
        body = body.replace(colour, f"var(--{name})")
    xlink = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {box[0]}{limits} {xlink} role="img" aria-label="{escape(description)}">{body}'
