"""The report as one HTML file: no script, nothing loaded from anywhere, readable by keyboard and screen reader.

Jinja2 escapes every value. The content security policy permits only the style that is in the page, so that a text of
an attacker could neither run nor load anything even if it were not escaped.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from sidecar.audit.counts import counted
from sidecar.audit.report.hop_map import BOX_HEIGHT, BOX_WIDTH, draw, person_of, short
from sidecar.audit.report.story import Report, alike
from sidecar.observe.record_text import mask_tokens

_HERE: Final = files("sidecar.audit.report")
_MOST_CALLS: Final = 12  # kinds of calls in one line of the answer; the timeline has all


def page(report: Report) -> str:
    """Return the page."""
    return render(_read("report.html"), report=report)


def style() -> str:
    """Return the style of every page."""
    return _read("report.css")


def policy_of(css: str) -> str:
    """Return the content security policy of a page that has this style and nothing else.

    It fits into a page. ``frame-ancestors`` only counts in a header: a server adds it.
    """
    digest = b64encode(sha256(css.encode()).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def render(template: str, **values: Any) -> str:
    """Return a page made from a template, which may import the macros of ``parts.html``."""
    css = style()
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read),
    )
    environment.filters |= {"visible": visible, "short": short, "alike": alike}
    environment.globals |= {
        "draw": draw, "counted": counted, "person_of": person_of, "box_width": BOX_WIDTH, "box_height": BOX_HEIGHT,
        "style": css, "policy": policy_of(css), "most_calls": _MOST_CALLS,
    }  # fmt: skip
    rendered: str = environment.from_string(template).render(**values)
    return rendered


def visible(text: str) -> str:
    """Make control characters, bidi marks and the like visible, and mask tokens. Nothing is cut."""
    text = mask_tokens(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
