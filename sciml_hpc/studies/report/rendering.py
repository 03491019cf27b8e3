"""How figures become files, the same ones for the same figures, and parts of a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.figure import Figure

STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sciml_hpc",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "text.parse_math": False,  # names come from files
    "figure.constrained_layout.use": True,
}
_METADATA = {"svg": {"Date": None, "Creator": None, "Format": None, "Type": None}, "png": {"Software": None}}


@contextmanager
def style() -> Iterator[None]:
    """While figures are made and written."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def svg(figure: Figure) -> str:
    """As an SVG file; the same figure gives the same text."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=_METADATA["svg"])
    return out.getvalue()


def png(figure: Figure) -> bytes:
    """As a PNG file of 200 dots per inch."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=200, metadata=_METADATA["png"])
    return out.getvalue()


def inline(svg_file: str, name: str) -> str:
    """The element of an SVG file for use within a page: its ids are the page's own, its style does not reach out.

    The element is described by the caption with the id `name`-caption.
    """
    body = svg_file[svg_file.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r'(<image[^>]*) id="[^"]*"', r"\1", body)  # equal images have equal ids
    body = re.sub(r'(\sid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*", "font-family: 'DejaVu Sans', Verdana, sans-serif", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    return re.sub(
        r'<svg [^>]*?width="[^"]*" height="[^"]*" viewBox="([^"]*)"[^>]*>',
        rf'<svg class="drawing" role="img" aria-labelledby="{name}-caption" viewBox="\1">',
        body,
        count=1,
    )
