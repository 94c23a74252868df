"""The delegation sidecar: every hop of an agent mesh carries its own proof of who acts for whom."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - run from a clone, where no installer has checked it
    raise SystemExit(
        f"sidecar: Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try python3.11 -m sidecar"
    )

__version__ = "0.1.0"
