"""Development commands as separate processes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

_MAIN = """
import argparse, importlib, sys
command = importlib.import_module(sys.argv[1])
parser = argparse.ArgumentParser()
command.add_arguments(parser)
sys.exit(command.run(parser.parse_args(sys.argv[2:])))
"""


async def start(module: str, *arguments: str) -> Process:
    """Start a command."""
    return await asyncio.create_subprocess_exec(sys.executable, "-c", _MAIN, module, *arguments, stderr=PIPE)


@contextlib.asynccontextmanager
async def running(module: str, *arguments: str) -> AsyncIterator[Process]:
    """Run a command that is killed at the end if it has not ended by then."""
    process = await start(module, *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(process: Process, text: str) -> str:
    """Return the next line on stderr that holds the text."""
    assert process.stderr
    async with asyncio.timeout(10):
        while line := (await process.stderr.readline()).decode():
            if text in line:
                return line
    raise AssertionError(f"the process ended without saying {text!r}")


async def ended(process: Process) -> tuple[int, str]:
    """Return the exit code and the rest of stderr."""
    async with asyncio.timeout(10):
        _, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stderr.decode()
