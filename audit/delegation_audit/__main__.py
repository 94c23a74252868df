"""``python -m delegation_audit`` runs the command where its script is not on PATH."""

from __future__ import annotations

import sys

from delegation_audit.command import main

if __name__ == "__main__":
    sys.exit(main())
