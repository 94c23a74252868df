"""``sidecar dev run -- COMMAND``: an agent program beside a sidecar, in a mesh of its own, with a test user to call it.

Everything is on loopback and for development only: a Workload API with its own CA, an issuer where the test user logs
in without a password, a token service, an entry's sidecar and the agent's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from delegation_core.console.examples import add_examples
from delegation_core.errors import ConfigError
from sidecar_dev.agent_mesh import AgentMesh, say
from sidecar_dev.processes import ProcessError
from sidecar_dev.run_plan import plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_examples(
        parser,
        "sidecar dev run -- python agent.py",
        "sidecar dev run --agent-port 9090 --may-call crm=http://127.0.0.1:9000 -- ./agent --port 9090",
        "sidecar dev run --may-call writer=http://127.0.0.1:9001 --may-call writer:crm=http://127.0.0.1:9002 "
        "--outbound-port writer=7081 -- python planner.py",
        "sidecar dev run --port 9001 --a2a agent --may-call crm=http://127.0.0.1:9000 --mcp crm -- python agent.py",
        "sidecar dev run --grpc agent --may-call crm=http://127.0.0.1:9000 --grpc crm -- python agent.py",
        "sidecar dev run --print-settings --keep run1 -- python agent.py  # then: sidecar check run1/agent.yaml",
    )
    parser.add_argument(
        "--agent-port", type=int, default=8080, metavar="PORT", help="where the agent listens (default %(default)s)"
    )
    parser.add_argument("--port", type=int, metavar="PORT", help="where callers reach the agent through the mesh")
    _add_list(
        parser, "--outbound-port", "[NAME=]PORT", "the port in SIDECAR_OUTBOUND_URL, of the agent or of a service"
    )
    parser.add_argument("--user", default="alice", metavar="NAME", help="the test user (default %(default)s)")
    _add_list(
        parser,
        "--may-call",
        "[CALLER:]NAME[=URL]",
        "a plain HTTP service on loopback that gets a sidecar too and that the agent, or the service CALLER, may call; "
        "may be given again, with the URL once",
    )
    _add_list(
        parser, "--host", "NAME=HOST", "the host by which the agent calls that service, with us as its HTTP proxy"
    )
    _add_list(parser, "--mcp", "NAME[=PATH]", "that service, or agent, is an MCP server at this path (default /mcp)")
    _add_list(parser, "--a2a", "NAME[=PATH]", "that service, or agent, speaks A2A at this path (default /)")
    _add_list(
        parser,
        "--grpc",
        "NAME",
        "that service, or agent, speaks gRPC without TLS; callers use NAME as the authority",
    )
    _add_list(parser, "--allow", "NAME=OPERATION", "an operation that may be asked for there; if none is given, all")
    parser.add_argument(
        "--print-settings",
        action="store_true",
        help="at the end print settings for production, with the operations seen, on stdout; the agent's output then "
        "goes to stderr",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="a new folder for the records of the run, and with --print-settings for a file of settings of each "
        "sidecar, in place of stdout",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="COMMAND",
        help="the agent program, after --; it is told PORT, SIDECAR_OUTBOUND_URL and SIDECAR_AGENT_URL",
    )


def _add_list(parser: argparse.ArgumentParser, option: str, form: str, text: str) -> None:
    parser.add_argument(option, action="append", default=[], metavar=form, help=text)


def run(arguments: argparse.Namespace) -> int:
    """Run until the command ends or Ctrl-C. Return its exit code, 128 + n after signal n, 2 for bad arguments."""
    try:
        plan = plan_of(arguments)
        with tempfile.TemporaryDirectory(prefix="sidecar-", ignore_cleanup_errors=True) as folder:
            return AgentMesh(Path(folder), plan).run()
    except ConfigError as error:
        say(str(error))
        return 2
    except ProcessError as error:
        say(str(error))
        return 1
