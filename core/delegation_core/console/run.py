"""Runs the function of a command. It imports nothing that a health check could do without."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Final

OUTPUT_CLOSED: Final = 141  # 128 + SIGPIPE, as a shell reports any program whose reader is gone


def run_target(target: str, arguments: argparse.Namespace) -> int:
    """Run a command's function, ``module:function``, and return its exit code: 141 if the output's reader is gone."""
    module, _, function = target.partition(":")
    try:
        code: int = getattr(importlib.import_module(module), function)(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `sidecar explain … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at exit
        return OUTPUT_CLOSED
    return code
