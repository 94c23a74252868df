"""The report as one HTML file: no script, nothing loaded from anywhere, readable by keyboard and screen reader.

Jinja2 escapes every value. The content security policy permits only the style that is in the page, so that a text of
an attacker could neither run nor load anything even if it were not escaped.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from sidecar.audit.report.hop_map import BOX_HEIGHT, BOX_WIDTH, draw, person_of, short
from sidecar.audit.report.story import Report
from sidecar.observe.record_text import mask_tokens

_HERE: Final = files("sidecar.audit.report")


def page(report: Report) -> str:
    """Return the page."""
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["visible"] = visible
    environment.filters["short"] = short
    template = environment.from_string((_HERE / "report.html").read_text(encoding="utf-8"))
    digest = b64encode(sha256(style.encode()).digest()).decode("ascii")
    rendered: str = template.render(
        report=report,
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        draw=draw,
        person_of=person_of,
        box_width=BOX_WIDTH,
        box_height=BOX_HEIGHT,
    )
    return rendered


def visible(text: str) -> str:
    """Make control characters, bidi marks and the like visible, and mask tokens. Nothing is cut."""
    text = mask_tokens(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)
