"""One harness under atheris, guided by coverage. The import instruments the product, and reads its words, for all."""

from __future__ import annotations

import importlib
import signal
from contextlib import redirect_stderr
from io import StringIO

signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all

atheris = importlib.import_module("atheris")  # requirements/fuzz.txt: not available everywhere, and untyped

with redirect_stderr(StringIO()), atheris.instrument_imports(include=["sidecar"]):  # it names each module
    from tests.fuzz.harnesses import HARNESSES
    from tests.fuzz.properties import own_words

own_words()


def main(name: str, *arguments: str) -> None:
    """Run a harness with arguments of libFuzzer, which ends the process."""
    atheris.Setup([name, *arguments], HARNESSES[name].check)
    atheris.Fuzz()
