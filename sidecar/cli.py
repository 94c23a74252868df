"""The ``sidecar`` command: argument parsing only. A subcommand's module is imported when it is called.

Exit codes: 0 success, 1 findings or refused, 2 usage or settings, 3 ``audit all`` is inconclusive, 141 the reader of
the output has closed its pipe.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final, TypeAlias

from delegation_core.console.examples import add_examples
from delegation_core.console.run import run_target
from sidecar import __version__
from sidecar.signals import hold_signals

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

ENTRY_POINTS: Final = "sidecar.commands"  # a function (parser of the command, words after the command's name)

DEFAULT_CONFIG: Final = "/etc/sidecar/sidecar.yaml"
DEFAULT_SOCKET: Final = "/run/sidecar/admin.sock"
DEFAULT_STS_CONFIG: Final = "/etc/sidecar/sts.yaml"

MAX_WORKERS: Final = 64  # the marks available to handles

# Commands that handle signals; until their handlers are installed, signals are held.
_LASTING: Final = ("sidecar.app:run", "sidecar.sts_app:run", "sidecar.injector.command:run")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = build_parser(words).parse_args(words)
    if arguments.target in _LASTING and getattr(arguments, "trial", None) is None:
        hold_signals()
    return run_target(arguments.target, arguments)


def build_parser(words: Sequence[str] | None) -> argparse.ArgumentParser:
    """Return the parser for the command line ``words``.

    Only the command that ``words`` name gets its arguments, because that imports its module. With None every command
    gets them, including those of ``sidecar-dev`` if that is installed.
    """
    parser = argparse.ArgumentParser(
        prog="sidecar", description="A reverse proxy beside every AI agent that makes every hop attributable."
    )
    add_examples(
        parser,
        "sidecar run --config sidecar.yaml",
        "sidecar audit attribution access.log",
        "sidecar audit --help  # each command has examples",
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    _sidecar(commands, words)
    _other_services(commands, words)
    _afterwards(commands, words)
    _development(commands, words)

    completion = _command(commands, "completion", "sidecar.completion:run", "print a shell's completion script")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that sources it")
    add_examples(
        completion,
        "sidecar completion bash >~/.local/share/bash-completion/completions/sidecar",
        "sidecar completion zsh >~/.zsh/_sidecar  # a folder of fpath",
        "sidecar completion fish >~/.config/fish/completions/sidecar.fish",
    )
    return parser


def _names(words: Sequence[str] | None, *path: str) -> bool:
    """Return True if the words name this command, or are None."""
    return words is None or tuple(words[: len(path)]) == path


def _sidecar(commands: _Commands, words: Sequence[str] | None) -> None:
    """Add the commands that run a sidecar and query it."""
    run = _command(commands, "run", "sidecar.app:run", "run beside an agent")
    add_examples(run, "sidecar run --config sidecar.yaml", "sidecar run --platform platform.yaml --workers 2")
    _config(run, DEFAULT_CONFIG)
    _platform(run)
    run.add_argument(
        "--workers", type=_workers, default=1, metavar="N", help="processes that share the load (default %(default)s)"
    )

    check = _command(commands, "check", "sidecar.check:run", "list every problem of a settings file")
    if _names(words, "check"):
        importlib.import_module("sidecar.check").add_arguments(check, DEFAULT_CONFIG)

    status = _command(
        commands, "status", "sidecar.status.command:run", "print the state of a running sidecar, its problems and fixes"
    )
    if _names(words, "status"):
        importlib.import_module("sidecar.status.command").add_arguments(status, DEFAULT_SOCKET)

    health = _command(commands, "healthcheck", "sidecar.healthcheck:run", "exit with 0 if the sidecar is ready")
    if _names(words, "healthcheck"):
        importlib.import_module("sidecar.healthcheck").add_arguments(health, DEFAULT_CONFIG)


def _other_services(commands: _Commands, words: Sequence[str] | None) -> None:
    """Add the commands of the other services: token service and injector."""
    sts = _command(commands, "sts", "sidecar.sts_app:run", "run the token service")
    _config(sts, DEFAULT_STS_CONFIG)
    add_examples(sts, "sidecar sts --config sts.yaml", "sidecar sts keygen /var/lib/sidecar/keys")
    sts_commands = sts.add_subparsers(metavar="COMMAND", required=False)
    keygen = _command(sts_commands, "keygen", "sidecar.sts.keygen:run", "add the next signing key to a directory")
    if _names(words, "sts", "keygen"):
        importlib.import_module("sidecar.sts.keygen").add_arguments(keygen)
    revoke = _command(sts_commands, "revoke", "sidecar.revoke:run", "stop a user, workload, chain, token or login")
    if _names(words, "sts", "revoke"):
        importlib.import_module("sidecar.revoke").add_arguments(revoke)
    doctor = _command(sts_commands, "doctor", "sidecar.doctor.command:run", "probe another token service")
    if _names(words, "sts", "doctor"):
        importlib.import_module("sidecar.doctor.command").add_arguments(doctor)
    judge = _command(sts_commands, "explain", "sidecar.explain.sts_command:run", "judge recorded exchanges again")
    if _names(words, "sts", "explain"):
        importlib.import_module("sidecar.explain.sts_command").add_arguments(judge)
    policy = _command(sts_commands, "policy", "sidecar.explain.policy_command:run", "show who may act for whom where")
    if _names(words, "sts", "policy"):
        importlib.import_module("sidecar.explain.policy_command").add_arguments(policy)

    injector = _command(commands, "injector", "sidecar.injector.command:run", "inject sidecars into Kubernetes pods")
    if _names(words, "injector"):
        importlib.import_module("sidecar.injector.command").add_arguments(injector)


def _afterwards(commands: _Commands, words: Sequence[str] | None) -> None:
    """Add the commands that evaluate records and logs: those of the audit if its distribution is installed."""
    explain = _command(commands, "explain", "sidecar.explain.command:run", "judge a recorded request again")
    if _names(words, "explain"):
        importlib.import_module("sidecar.explain.command").add_arguments(explain, DEFAULT_CONFIG)

    audit = commands.add_parser(
        "audit", help="evaluate records and logs offline", description="Evaluate records and logs offline."
    )
    if _names(words, "audit"):
        _add_installed("audit", audit, None if words is None else words[1:])


def _development(commands: _Commands, words: Sequence[str] | None) -> None:
    """Add the commands of the distribution ``sidecar-dev``, absent in production."""
    for name, text in (
        ("demo", "show three hops, three tokens, no impersonation"),
        ("dev", "for development only: identities, test users, a mesh around one agent"),
    ):
        command = commands.add_parser(name, help=f"{text} (sidecar-dev)", description=text[0].upper() + text[1:] + ".")
        if _names(words, name):
            _add_installed(name, command, None if words is None else words[1:])


def _add_installed(name: str, command: argparse.ArgumentParser, words: Sequence[str] | None) -> None:
    from importlib.metadata import entry_points  # here: the import takes a quarter of the time of --version

    found = list(entry_points(group=ENTRY_POINTS, name=name))
    if len(found) > 1:
        from delegation_core.console.extras import only_one

        command.error(f"`sidecar {name}` {only_one(one.value for one in found)}")
    for one in found:
        one.load()(command, words)
        return
    if words is None:
        return
    if name == "audit":
        from delegation_core.console.extras import needs

        command.error(f"`sidecar audit` {needs('audit')}")
    command.error(
        f"`sidecar {name}` is for development and not installed: it belongs to the distribution sidecar-dev;"
        " run `pip install ./core ./audit . ./dev` in a clone of the repository"
    )


def _workers(text: str) -> int:
    count = int(text)
    if not 1 <= count <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"1 to {MAX_WORKERS}")
    return count


def _command(commands: _Commands, name: str, target: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(target=target)
    return command


def _config(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument("--config", default=default, metavar="FILE", help="the settings file (default %(default)s)")


def _platform(command: argparse.ArgumentParser) -> None:
    command.add_argument("--platform", metavar="FILE", help="a ceiling that the settings can only narrow")


if __name__ == "__main__":
    sys.exit(main())
