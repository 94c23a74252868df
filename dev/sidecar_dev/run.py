"""``sidecar dev run -- COMMAND``: an agent program beside a sidecar, in a mesh of its own, with a test user to call it.

Everything is on loopback and for development only: a Workload API with its own CA, an issuer where the test user logs
in without a password, a token service, an entry's sidecar and the agent's.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import tempfile
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigError, Problem
from sidecar.examples import add_examples
from sidecar_dev import run_settings
from sidecar_dev.agent_mesh import AgentMesh, say
from sidecar_dev.processes import ProcessError, listens

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_examples(
        parser,
        "sidecar dev run -- python agent.py",
        "sidecar dev run --agent-port 9090 --may-call crm=http://127.0.0.1:9000 -- ./agent --port 9090",
    )
    parser.add_argument(
        "--agent-port", type=int, default=8080, metavar="PORT", help="where the agent listens (default %(default)s)"
    )
    parser.add_argument("--user", default="alice", metavar="NAME", help="the test user (default %(default)s)")
    parser.add_argument(
        "--may-call",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="a plain HTTP service on loopback that gets a sidecar too and that the agent may call; may be given again",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="COMMAND",
        help="the agent program, after --; it is told PORT and SIDECAR_OUTBOUND_URL",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until the command ends or Ctrl-C. Its exit code; 128 + n if signal n ended it; 2 for unusable arguments."""
    try:
        tools = _tools(arguments.may_call)
        _require(arguments)
        with tempfile.TemporaryDirectory(prefix="sidecar-", ignore_cleanup_errors=True) as folder:
            return AgentMesh(Path(folder), arguments.words, arguments.agent_port, arguments.user, tools).run()
    except ConfigError as error:
        say(str(error))
        return 2
    except ProcessError as error:
        say(str(error))
        return 1


def _require(arguments: argparse.Namespace) -> None:
    problems = []
    if not 1 <= arguments.agent_port <= 65535:
        problems.append(Problem("--agent-port", "it is not a port number", "write 1 to 65535"))
    elif listens(arguments.agent_port):
        problems.append(Problem("--agent-port", f"{arguments.agent_port} is taken", "choose a free one"))
    if not _NAME.fullmatch(arguments.user):
        problems.append(Problem("--user", "it is not a simple name", "write a name such as alice"))
    if problems:
        raise ConfigError(problems)


def _tools(texts: Sequence[str]) -> dict[str, str]:
    """``NAME=URL`` → name → origin."""
    found: dict[str, str] = {}
    problems = []
    for text in texts:
        name, _, url = text.partition("=")
        if not _NAME.fullmatch(name) or name in run_settings.RESERVED or name in found:
            problems.append(Problem("--may-call", f"{name!r} is not a free name", "write a name such as crm, once"))
        elif not _is_origin(url):
            problems.append(
                Problem("--may-call", "the URL is not an origin on loopback", "write http://127.0.0.1:PORT")
            )
        found[name] = url.rstrip("/")
    if problems:
        raise ConfigError(problems)
    return found


def _is_origin(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    try:
        loopback = ipaddress.ip_address(parts.hostname or "").is_loopback
        port = parts.port
    except ValueError:
        return False
    return loopback and port is not None and parts.username is None and url.rstrip("/") == f"http://{parts.netloc}"
