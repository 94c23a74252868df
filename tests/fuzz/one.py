"""``python -m tests.fuzz.one HARNESS [libFuzzer arguments]``: one harness under atheris, guided by coverage."""

from __future__ import annotations

import importlib
import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it, by SIGTERM

atheris = importlib.import_module("atheris")  # requirements/fuzz.txt: not available everywhere, and untyped

with atheris.instrument_imports(include=["sidecar"]):
    from tests.fuzz.harnesses import HARNESSES

if __name__ == "__main__":
    check = HARNESSES[sys.argv[1]].check
    atheris.Setup([sys.argv[0], *sys.argv[2:]], check)
    atheris.Fuzz()
