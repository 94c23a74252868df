"""Commands that install an optional extra: from files that the reader has, never by name from an index.

A name on an index belongs to whoever registers it first, so a command with a name could install a stranger's code.
"""

from __future__ import annotations

from typing import Literal

from sidecar import __version__

Extra = Literal["audit", "clickhouse", "otel", "spiffe"]


def install_command(extra: Extra) -> str:
    """Return the fix for a missing extra: one command for a clone, one for the wheel of a release."""
    wheel = f"delegation_sidecar-{__version__}-py3-none-any.whl"
    return f"in a clone `pip install '.[{extra}]'`, from a release `pip install '{wheel}[{extra}]'`"


def needs(extra: Extra) -> str:
    """Return the end of a message about a command or option that cannot run without an extra."""
    return f'needs the extra "{extra}": {install_command(extra)}'
