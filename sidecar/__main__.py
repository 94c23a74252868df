"""The ``sidecar`` command by ``python -m sidecar``, where the script is not on PATH."""

from __future__ import annotations

import sys

from sidecar.cli import main

if __name__ == "__main__":
    sys.exit(main())
