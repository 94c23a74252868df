"""Renders the report as one HTML file: no script, no external resource, usable by keyboard and screen reader.

Jinja2 escapes every value. The content security policy permits only the style in the page, so that an attacker's text
could neither run nor load anything even if it were not escaped.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from delegation_audit.report.hop_map import BOX_HEIGHT, BOX_WIDTH, draw, person_of, short
from delegation_audit.report.story import Report, group_steps
from delegation_core.console.counts import pluralise
from delegation_core.records.record_text import mask_tokens

_HERE: Final = files("delegation_audit.report")
_MOST_CALLS: Final = 12  # groups of calls in one line of the summary; the timeline has all


def page(report: Report) -> str:
    """Render the HTML page of a report."""
    return render(_read("report.html"), report=report)


def style() -> str:
    """Return the CSS that all pages share."""
    return _read("report.css")


def policy_of(css: str) -> str:
    """Return a content security policy that permits this CSS and nothing else, for the page's ``meta`` element.

    ``frame-ancestors`` works only in a header: a server must add it.
    """
    digest = b64encode(sha256(css.encode()).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def render(template: str, **values: Any) -> str:
    """Render a page from a template, which may import the macros of ``parts.html``."""
    css = style()
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read),
    )
    environment.filters |= {"visible": visible, "short": short, "alike": group_steps}
    environment.globals |= {
        "draw": draw, "counted": pluralise, "person_of": person_of, "box_width": BOX_WIDTH, "box_height": BOX_HEIGHT,
        "style": css, "policy": policy_of(css), "most_calls": _MOST_CALLS,
    }  # fmt: skip
    rendered: str = environment.from_string(template).render(**values)
    return rendered


def visible(text: str) -> str:
    """Mask tokens, and escape control characters, bidi marks and other unprintable ones. Truncates nothing."""
    text = mask_tokens(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
