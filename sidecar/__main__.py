"""The ``sidecar`` command by ``python -m sidecar``, where the script is not on PATH."""

from __future__ import annotations

import sys

from sidecar.cli import main

sys.exit(main())
