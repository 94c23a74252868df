"""Commands that install what is missing: from files that the reader has, never by name from an index.

A name on an index belongs to whoever registers it first, so a command with a name could install a stranger's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from delegation_core import __version__

Missing = Literal["audit", "clickhouse", "otel", "sidecar", "spiffe"]

# What to name, the distribution, and its extra.
_NEEDED: Final[Mapping[Missing, tuple[str, str, str]]] = {
    "audit": ("the distribution delegation-audit", "audit", ""),
    "sidecar": ("the distribution delegation-sidecar", "sidecar", ""),
    "clickhouse": ('the extra "clickhouse"', "audit", "[clickhouse]"),
    "otel": ('the extra "otel"', "sidecar", "[otel]"),
    "spiffe": ('the extra "spiffe"', "sidecar", "[spiffe]"),
}


def install_command(missing: Missing) -> str:
    """Return the fix: one command for a clone, one for the wheels of a release."""
    _, distribution, extra = _NEEDED[missing]
    folder = ("." if distribution == "sidecar" else f"./{distribution}") + extra
    core, wheel = (f"delegation_{name}-{__version__}-py3-none-any.whl" for name in ("core", distribution))
    quoted = (f"'{folder}'", f"'{wheel}{extra}'") if extra else (folder, wheel)
    return f"in a clone `pip install ./core {quoted[0]}`, from a release `pip install {core} {quoted[1]}`"


def needs(missing: Missing) -> str:
    """Return the end of a message about a command or option that cannot run without a distribution or an extra."""
    return f"needs {_NEEDED[missing][0]}: {install_command(missing)}"


def only_one(values: Iterable[str]) -> str:
    """Return the end of an error: several distributions register a command, with these values of their entry points.

    Python lists them in no fixed order, so the first could be a foreign one.
    """
    named = ", ".join(sorted(map(ascii, values)))
    return f"is registered by several distributions ({named}); uninstall all but ours"
