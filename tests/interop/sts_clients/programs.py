"""Clients of token exchange that we did not write, each as a program that asks one question of a token endpoint.

A question goes to standard input as JSON. It names the endpoint, the files of an X.509-SVID and bundle, and the
parameters. On standard output comes the client's own reading of the answer: ``access_token`` and ``token_type``, the
``error`` code of a refusal, or ``failed`` for anything else.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.interop.sts_servers import launch_zitadel
from tests.interop.sts_servers.builds import built, maven, not_on_path, python, run

HERE: Final = Path(__file__).parent
_NPM: Final = HERE / "npm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One client: the programs that it needs, and its command, built at first use."""

    name: str
    tools: tuple[str, ...]
    command: Callable[[], list[str | Path]]

    def reason_to_skip(self) -> str | None:
        """Return the reason to skip it here; None: it can run."""
        chosen = os.environ.get("STS_CLIENTS", "").split()
        if chosen and self.name not in chosen:
            return f"{self.name}: not chosen by STS_CLIENTS"
        lacking = not_on_path(self.tools)
        assert lacking is None or not chosen or "CI" not in os.environ, lacking
        return f"{self.name}: {lacking}" if lacking else None


def _npm() -> Path:
    sources = [_NPM / name for name in ("package.json", "package-lock.json", "client.mjs")]

    def make(folder: Path) -> None:
        for source in sources:
            shutil.copy(source, folder)
        run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)

    return built("npm", sources, make)


PROGRAMS: Final[dict[str, Program]] = {
    program.name: program
    for program in (
        Program(name="zitadel-client", tools=("go",), command=lambda: [launch_zitadel.prepare() / "client"]),
        Program(
            name="spring-client",
            tools=("java", "mvn"),
            command=lambda: [
                *("java", "-Xmx96m", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-jar"),
                maven("spring-client", HERE / "spring", "client.build") / "client.jar",
            ],
        ),
        Program(name="openid-client", tools=("node", "npm"), command=lambda: ["node", _npm() / "client.mjs"]),
        Program(name="authlib", tools=(), command=lambda: [python(), HERE / "authlib_client.py"]),
    )
}


async def ask(program: Program, question: Mapping[str, object]) -> dict[str, Any]:
    """Run a client with one question; return what it says of the answer.

    Raises:
        AssertionError: it ended with another status than 0, with the end of its output.
    """
    pipe = asyncio.subprocess.PIPE
    words = map(str, await asyncio.to_thread(program.command))
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await process.communicate(json.dumps(question).encode())
    assert process.returncode == 0, err.decode(errors="replace")[-2000:]
    told: dict[str, Any] = json.loads(out)
    return told
