"""The page as one HTML file that needs nothing else: style within it, figures as SVG, no script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from sciml_hpc.studies.report import rendering
from sciml_hpc.studies.report.parts import Page

HERE = Path(__file__).parent


def render(page: Page, drawn: Mapping[str, str]) -> str:
    """The file; `drawn` has the SVG file of each drawing by its name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["named"] = named
    inline = {name: Markup(rendering.inline(svg, f"figure-{name}")) for name, svg in drawn.items()}
    style = Markup((HERE / "style.css").read_text())
    return environment.get_template("template.html.j2").render(page=page, drawn=inline, style=style) + "\n"


def named(words: str, joints: bool = True) -> Markup:
    """Escaped, with names between backticks set as such; long names and paths may be broken at their joints."""
    text = str(escape(_printable(words)))
    if joints:
        text = re.sub(r"([_/])(?=\w)", r"\1<wbr>", text)
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", text))


def _printable(value: Any) -> Any:
    """Text from files without control characters, nor those that turn the direction of what follows."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in value)
