"""Pages from templates: one file each, every value escaped, and a policy that forbids all other scripts."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mribench import __version__
from mribench.data.grid import Grid
from mribench.reports.grid import plain
from mribench.reports.rows import percent

_SHADES = 10  # steps of the rank-probability map


def filled(template: str, **context: object) -> Markup:
    """A template of this package with its values, each escaped and on one line."""
    return Markup(_environment().get_template(template).render(**context))


def page(template: str, title: str, style: Markup, scripts: Sequence[str] = (), **context: object) -> str:
    """A whole page; its policy allows exactly this style sheet and these scripts."""
    marked = [Markup(script) for script in scripts]
    return filled(template, title=title, style=style, scripts=marked, version=__version__, **context)


def style_sheet(template: str, grid: Grid, **context: object) -> Markup:
    """A style sheet whose three views are so wide that a millimetre is equally long in each."""
    x, y, _ = (n * mm for n, mm in zip(grid.sides, grid.spacing_mm, strict=True))
    widths, pair = f"{x:g}fr {x:g}fr {y:g}fr", f"{x:g}fr {y:g}fr"
    return filled(template, widths=widths, pair=pair, shades=_SHADES, **context)


def css_string(text: str) -> Markup:
    """A quoted string of CSS, which nothing in the text can end."""
    letters = (c if (c.isascii() and c.isalnum()) or c == " " else f"\\{ord(c):x} " for c in plain(text))
    return Markup('"' + "".join(letters) + '"')


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mribench.reports.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    environment.filters.update(
        anchor=_anchor,
        digest=_digest,
        minus=lambda text: re.sub(r"-(?=\d)", "\u2212", str(text)),
        percent=percent,
        unbroken=lambda text: str(text).replace(" %", "\u00a0%"),
        shade=lambda chance: round(_SHADES * chance),
    )
    return environment


def _anchor(text: str) -> str:
    """An id for any name, of letters that need no escaping."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _digest(text: str) -> Markup:
    """What the content security policy must say to allow this style sheet or script."""
    return Markup("sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
