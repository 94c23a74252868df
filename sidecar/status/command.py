"""``sidecar status``: prints the state of a running sidecar, its problems, and the fix of each."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from delegation_core.console.examples import add_examples
from delegation_core.console.extras import needs
from delegation_core.console.output import complain, print_json, print_line, print_table
from delegation_core.errors import Reason
from sidecar.observe.placement import network_namespace
from sidecar.reasons.advice import GUIDANCE
from sidecar.status.client import NoAnswerError, ask
from sidecar.status.troubles import Grade, Trouble, span, troubles

Json = Mapping[str, Any]

_ASK_S: Final = 0.1
_KIB: Final = 1024
_MIB: Final = 1024 * 1024
_UP: Final = {True: "listens", False: "gone", None: "not seen yet"}
_STYLES: Final = {Grade.WRONG: "bold red", Grade.NOTE: "yellow"}


def add_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options of the command. ``default`` is the socket that it asks without one."""
    add_examples(
        parser, "sidecar status", "sidecar status --socket /run/sidecar/admin.sock --chains", "sidecar status --web"
    )
    parser.add_argument("--socket", default=default, metavar="PATH", help="its admin.socket (default %(default)s)")
    parser.add_argument("--web", action="store_true", help="serve the state as a live page while the command runs")
    parser.add_argument("--chains", action="store_true", help="also print the requests in flight")
    parser.add_argument(
        "--wait-deny",
        metavar="FILE",
        help="wait until the deny list in this file is in force in every process; exit code 3 if rows match nothing",
    )
    parser.add_argument(
        "--wait", type=float, default=10.0, metavar="S", help="how long to wait for it (default %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(arguments: argparse.Namespace) -> int:
    """Ask and print. Exit codes: 0 ready, 1 not ready, 2 no answer, 3 ready, but new settings were refused.

    With ``--wait-deny``: 0 every process uses the file's list, 1 some process does not in time, 2 no answer or no list,
    3 every process does, but rows of the list match nothing.
    """
    try:
        if arguments.wait_deny is not None:
            return _wait_for(Path(arguments.wait_deny), Path(arguments.socket), arguments.wait)
        status = ask(Path(arguments.socket), "/status", member="settings")
        chains = ask(Path(arguments.socket), "/chains", member="being_served") if arguments.chains else None
    except NoAnswerError as error:
        return complain("status", str(error))
    if arguments.web:
        return _serve(Path(arguments.socket), status)
    found = troubles(status)
    if arguments.json:
        print_json({**status, "troubles": [{**asdict(one), "cure": one.fix} for one in found], **(chains or {})})
    else:
        _show(status, found)
        if chains is not None:
            _show_chains(chains, status["now"])
    if not status["ready"]:
        return 1
    return 0 if status["settings"]["refused_at"] is None else 3


def _wait_for(file: Path, socket: Path, patience_s: float) -> int:
    """Wait up to ``patience_s`` until every process uses the deny list in ``file``. Returns the exit code."""
    try:
        wanted = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        return complain("status", f"{file} cannot be read: {error.strerror}")
    deadline = time.monotonic() + patience_s
    while True:
        status = ask(socket, "/status", member="settings")
        denied = status.get("deny_file")
        if denied is None and (refused := _find_deny_file_refusal(status)) is None:
            return complain("status", "the settings have no deny_file; set it as in docs/runbook.md")
        if denied is None:
            denied = {"sha256": None, "rows": 0, "file": "deny_file", "error": refused}
        in_force = [one["deny_sha256"] for one in status.get("workers") or ()] or [denied["sha256"]]
        if set(in_force) == {wanted}:
            print_line(f"in force: {denied['rows']} rows, sha256 {wanted[:12]}")
            unmatched = status.get("deny_unmatched", ())
            for one in unmatched:
                print_line(f"  {one['row']}: {one['wrong']}: {one['fix']}")
            return 3 if unmatched else 0
        if time.monotonic() >= deadline:
            ours = sum(one == wanted for one in in_force)
            here = denied["error"] or f"another list, of {denied['rows']} rows"
            print_line(
                f"NOT in force after {patience_s:g} s: sha256 {wanted[:12]}, in {ours} of {len(in_force)} processes"
            )
            print_line(f"  {denied['file']}: {here}")
            return 1
        time.sleep(_ASK_S)


def _find_deny_file_refusal(status: Json) -> str | None:
    """Return the error if settings were refused because of their deny file; else None."""
    problems = status["settings"]["problems"]
    return next((one["wrong"] for one in problems if one["field"] == "deny_file"), None)


def _serve(socket: Path, status: dict[str, Any]) -> int:
    """Serve the live page until a signal. Returns the exit code: 0, or 2 if serving is unsafe or impossible here."""
    if find_spec("delegation_audit") is None:
        return complain("status", f"this {needs('audit')}")
    from sidecar.status.live import gone_page, live_page
    from sidecar.status.web import SharedNamespaceError, require_own_namespace, serve

    def page(*, paused: bool) -> str:
        state = ask(socket, "/status", member="settings")
        chains = ask(socket, "/chains", member="being_served")
        return live_page(state, chains, troubles(state), _rows(state), paused=paused)

    async def fresh(*, paused: bool) -> str:
        try:
            return await asyncio.to_thread(page, paused=paused)
        except NoAnswerError as error:
            return gone_page(str(error), paused=paused)

    try:
        require_own_namespace(status, network_namespace())
        asyncio.run(serve(fresh, lambda link: print_line(f"open {link} (it works once; Ctrl-C ends it)")))
    except (SharedNamespaceError, OSError) as error:
        return complain("status", str(error))
    return 0


def _show(status: Json, found: list[Trouble]) -> None:
    ready = status["ready"]
    up, run = span(status["now"] - status["since"]), status["run"] or "of several workers"
    print_line(
        f"{'ready' if ready else 'NOT READY'}, sidecar {status['version']}, run {run}, up {up}",
        style="bold green" if ready else "bold red",
    )
    print_line()
    print_table(("what", "state"), _rows(status))
    for one in found:
        print_line()
        print_line(f"{one.grade.upper()}: {one.what}: {one.wrong}", style=_STYLES[one.grade])
        print_line(f"  fix: {one.fix}")
    if status["refused"]:
        print_line()
        print_line("Refused since the start (docs/reasons.md explains each):")
        rows = list(status["refused"].items())
        print_table(("reason", "count", "means"), ((name, count, _means(name)) for name, count in rows))


def _rows(status: Json) -> Iterator[tuple[str, str]]:
    identity, settings, records = status["identity"], status["settings"], status["records"]
    if workers := status.get("workers"):
        ready = sum(one["ready"] for one in workers)
        yield "workers", f"{ready} of {len(workers)} ready, {status['restarts']} replaced since the start"
    yield "identity", f"{identity['state']}, {identity['spiffe_id'] or 'nobody'}"
    if identity["not_after"] is not None:
        left = span(identity["not_after"] - status["now"])
        yield "SVID", f"generation {identity['generation']}, ends in {left}"
    yield "trust domains", ", ".join(identity["trust_domains"]) or "none"
    for one in status["issuers"]:
        age = "no keys" if one["key_age_s"] is None else f"keys {span(one['key_age_s'])} old"
        yield "issuer", f"{one['issuer']}, {age}{'' if one['needed'] else ', not needed to be ready'}"
    for one in status["revocations"]:
        confirmed = "not fetched yet" if one["age_s"] is None else f"confirmed {span(one['age_s'])} ago"
        yield "revocations", f"{one['issuer']}, list {one['seq']}, {one['revoked']} in force, {confirmed}"
    yield "engine", status.get("engine", "python")
    yield "settings", f"version {settings['number']}, {span(status['now'] - settings['loaded_at'])} old"
    yield "inbound routes", ", ".join(settings["inbound_routes"]) or "none"
    yield "outbound routes", ", ".join(settings["outbound_routes"]) or "none"
    yield "deny rows", str(settings["deny_rows"])
    if (denied := status.get("deny_file")) is not None and denied["sha256"] is not None:
        since = span(status["now"] - denied["in_force_at"])
        yield "deny file", f"{denied['rows']} rows in force for {since}, sha256 {denied['sha256'][:12]}"
    for one in status["listeners"]:
        kind = "door" if one.get("door") else one["direction"]
        yield f"{kind} listener", f"{one['address']}, {one['connections']} of {one['max_connections']}"
    if (door := status.get("door")) is not None:
        end = door["certificate_not_after"]
        lasts = "none" if end is None else f"for {span(end - status['now'])}" if end > status["now"] else "expired"
        yield "door", f"{door['resource']} to {', '.join(door['routes'])}, certificate {lasts}"
    if (agent := status["agent"]) is not None:
        yield "agent", f"{agent['address']}, {_UP[agent['up']]}"
    if (memory := status["memory"]) is not None:
        yield "memory", f"{memory['used_bytes'] // _MIB} of {memory['limit_bytes'] // _MIB} MiB"
    yield "upstream connections", str(status["upstream_connections"])
    yield (
        "requests",
        f"{status['requests']['being_served']} in flight, {status['requests']['handles']} handles alive",
    )
    if (logins := status.get("logins")) is not None:
        held = f"{-(-logins['pending_bytes'] // _KIB)} of {logins['max_bytes'] // _KIB} KiB"
        yield "user logins", f"{logins['pending']} of {logins['max_pending']} pending, {held}"
    yield "streams", f"{status['streams']['inbound']} inbound, {status['streams']['outbound']} outbound"
    for one in status["exchanges"]:
        yield "issued tokens", f"{one['issuer']}, {one['tokens']} cached, {one['under_way']} in progress"
        if len(one["endpoints"]) > 1:
            works = sum(endpoint["failing_s"] is None for endpoint in one["endpoints"])
            yield "token endpoints", f"{one['issuer']}, {works} of {len(one['endpoints'])} work"
    yield "records", f"{records['sink']}, {records['trouble'] or 'ok'}, {records['waiting']} waiting"


def _show_chains(chains: Json, now: int) -> None:
    print_line()
    print_line(f"In flight: {chains['being_served']}")
    print_table(
        ("request", "for", "subject", "actors, current first", "route"),
        (
            (
                row["request_id"],
                span(now - row["since"]),
                _find_known(row["subject"], row["verified"]),
                " ← ".join(row["chain"] or ["-"]),
                row["route"],
            )
            for row in chains["chains"]
        ),
    )


def _find_known(subject: str | None, verified: bool) -> str | None:  # noqa: FBT001 - a column
    return subject if subject is None or verified else f"{subject} (unverified)"


def _means(reason: str) -> str | None:
    return GUIDANCE[Reason(reason)].means if reason in set(Reason) else None
