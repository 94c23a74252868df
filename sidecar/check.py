"""Command ``sidecar check``: lists every problem of a settings file, each with its field and its fix.

It recognises the kind of file by its keys, and prints the kind. For a file without problems it prints notes on valid
settings that may surprise; notes do not change the exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from delegation_core.console.examples import add_examples
from delegation_core.deny_list import DenyListError, parse_deny_list
from delegation_core.deny_names import domains_of, unmatched
from delegation_core.errors import ConfigError, Problem
from delegation_core.outside import InjectedKey, OutsideRoute, provider_at
from delegation_core.route import OutboundRoute
from delegation_core.steps import at_once
from sidecar.config import json_schema, kubernetes, load_sidecar, load_sts
from sidecar.config.bounds import near_bounds
from sidecar.config.document import DocumentError, parse_document, read_text
from sidecar.config.kinds import NAMES, Kind, kind_of
from sidecar.config.settings import SidecarSettings
from sidecar.config.sidecar_file import with_deny_file
from sidecar.engine import engine_of
from sidecar.sts.schedule import KeyLags

_WORDS: Final[Mapping[str, str]] = dict(NAMES.items()) | {"values": "values of the chart", "deny": "deny file"}


def add_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options of the command. ``default`` is the settings file to check if none is given."""
    add_examples(
        parser,
        "sidecar check sidecar.yaml",
        "sidecar check sts.yaml --json",
        "sidecar check --kubernetes planner.yaml",
        "sidecar check --kubernetes values.yaml",
        "sidecar check --schema --kind platform >platform.schema.json",
    )
    parser.add_argument("file", nargs="?", default=default, help="the settings file (default %(default)s)")
    parser.add_argument("--platform", metavar="FILE", help="a ceiling that the settings can only narrow")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--kind", choices=("sidecar", "sts", "platform"), help="the kind of file (default: by its keys)")
    kinds.add_argument("--sts", action="store_true", help="the file is a token service's, as --kind sts")
    parser.add_argument(
        "--kubernetes",
        action="store_true",
        help="check a settings file as it is in a pod of the chart, or every settings file in values of the chart",
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of settings files instead")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(arguments: argparse.Namespace) -> int:
    """Check one file. Exit codes: 0 the settings are valid, 2 they are not."""
    if arguments.schema:
        asked = _kind_of_options(arguments)
        print(json.dumps(json_schema(sts=asked == "sts", platform=asked == "platform"), indent=2))  # noqa: T201
        return 0
    found: tuple[Kind | Literal["values", "deny"] | None, Checked]
    found = _check_in_pods(arguments) if arguments.kubernetes else _check(arguments)
    kind, (problems, notes) = found
    what = "" if kind is None else f" ({_WORDS[kind]})"
    if arguments.json:
        found_json = {"problems": list(map(_as_json, problems)), "notes": list(map(_as_json, notes))}
        print(json.dumps({"file": arguments.file, "kind": kind, **found_json}, indent=2))  # noqa: T201
    elif problems:
        print(f"{arguments.file}: {_count(problems, 'problem')}{what}", file=sys.stderr)  # noqa: T201
        _list(problems)
    elif notes:
        print(f"{arguments.file}: fine, {_count(notes, 'note')}{what}")  # noqa: T201
        _list(notes)
    else:
        print(f"{arguments.file}: fine{what}")  # noqa: T201
    return 2 if problems else 0


def _kind_of_options(arguments: argparse.Namespace) -> Kind | None:
    """Return the kind of file that the options name, or None."""
    kind: Kind | None = "sts" if arguments.sts else arguments.kind
    return kind


def _check(arguments: argparse.Namespace) -> tuple[Kind | Literal["deny"] | None, Checked]:
    """Check the file as the kind that the options name, else as the kind that its keys reveal."""
    path, platform = Path(arguments.file), None if arguments.platform is None else Path(arguments.platform)
    if _kind_of_options(arguments) is None and _is_deny_file(path):
        return "deny", _check_deny_file(path)
    try:
        kind = _kind_of_options(arguments) or kind_of(path, os.environ)
    except ConfigError as error:
        return None, Checked(list(error.problems), [])
    if kind == "platform":
        return kind, check_ceiling(path, platform)
    return kind, check(path, os.environ, sts=kind == "sts", platform=platform)


def _is_deny_file(path: Path) -> bool:
    try:
        document = parse_document(read_text(path), name=str(path))
    except (DocumentError, ConfigError):
        return False
    return isinstance(document, dict) and document.keys() == {"deny"}


def _check_deny_file(path: Path) -> Checked:
    """Check a deny file alone. Rows that match nothing show only in a check of the settings that name the file."""
    try:
        at_once(parse_deny_list(path.read_bytes()))
    except (DenyListError, OSError) as error:
        fix = 'write {"deny": [rows]} as JSON, with rows as those of deny in the settings'
        return Checked([Problem(str(path), f"cannot be used: {error}", fix)], [])
    return Checked([], [])


def _check_in_pods(arguments: argparse.Namespace) -> tuple[Kind | Literal["values"] | None, Checked]:
    """Check a settings file as in a pod of the chart, or every settings file in the chart's values."""
    path, platform = Path(arguments.file), None if arguments.platform is None else Path(arguments.platform)
    try:
        values = kubernetes.values_in(path) if _kind_of_options(arguments) is None else None
        if values is not None and platform is not None:
            wrong = "is in the values already: platforms, by sidecar.platform"
            return "values", Checked([Problem("--platform", wrong, "leave it out")], [])
        if values is not None:
            each = [_check_in_pod(file) for file in kubernetes.pod_files(values)]
            return "values", Checked(
                [one for found in each for one in found.problems], [one for found in each for one in found.notes]
            )
        kind = _kind_of_options(arguments) or kind_of(path, kubernetes.SIDECAR)
        document = parse_document(read_text(path), name=str(path))
    except DocumentError as error:
        return None, Checked([error.problem], [])
    except ConfigError as error:
        return None, Checked(list(error.problems), [])
    settings = document if isinstance(document, dict) else {}
    environ = kubernetes.sts_variables(settings) if kind == "sts" else kubernetes.SIDECAR
    if kind == "platform":
        return kind, check_ceiling(path, platform)
    found = check(path, environ, sts=kind == "sts", platform=platform, ports=kubernetes.PORTS)
    return kind, Checked([*kubernetes.supplied_twice(kind, settings), *found.problems], found.notes)


def _check_in_pod(file: kubernetes.PodFile) -> Checked:
    """Check one settings file of the chart's values as a pod reads it, with its platform file."""
    with tempfile.TemporaryDirectory() as folder:
        path, above = Path(folder, "settings.yaml"), Path(folder, "platform.yaml")
        path.write_text(json.dumps(file.settings))
        if file.platform is not None:
            above.write_text(json.dumps(file.platform))
        if file.kind == "platform":
            found = check_ceiling(path)
        else:
            platform = None if file.platform is None else above
            found = check(path, file.environ, sts=file.kind == "sts", platform=platform, ports=file.ports)
    problems = [*kubernetes.supplied_twice(file.kind, file.settings), *found.problems]
    return Checked([_prefix_field(file, one) for one in problems], [_prefix_field(file, one) for one in found.notes])


def _prefix_field(file: kubernetes.PodFile, one: Problem) -> Problem:
    """Return the problem with the place of the settings file in the values before its field."""
    return replace(one, field=f"{file.where}.{one.field}")


class Checked(NamedTuple):
    """Result of a check: ``problems`` make a file unusable, ``notes`` are for valid settings that may surprise."""

    problems: list[Problem]
    notes: list[Problem]


def check(
    path: Path,
    environ: Mapping[str, str],
    *,
    sts: bool = False,
    platform: Path | None = None,
    ports: Mapping[str, int] | None = None,
) -> Checked:
    """Find every problem of a settings file. Without problems the file is valid, and notes may follow.

    ``ports`` are the ports of a pod, by name, which the listeners must use; None: any port is valid.
    """
    try:
        if sts and platform is not None:
            return Checked([Problem("--platform", "is not a ceiling of a token service", "leave it out, or --sts")], [])
        if sts:
            settings = load_sts(path, environ)
            _check_keys(settings.key_directory, settings.key_lags)
            return Checked([], list(near_bounds(settings.used)))
        loaded = with_deny_file(load_sidecar(path, environ, platform))
        engine_of(loaded.engine)
        notes = [*near_bounds(loaded.used), *_notes(loaded)]
        return Checked([] if ports is None else list(kubernetes.port_problems(loaded, ports)), notes)
    except ConfigError as error:
        return Checked(list(error.problems), [])


def check_ceiling(path: Path, platform: Path | None = None) -> Checked:
    """Find every problem of a platform file."""
    from sidecar.config.platform_file import load_platform

    if platform is not None:
        return Checked([Problem("--platform", "is not a ceiling of a ceiling", "leave it out, or name settings")], [])
    try:
        load_platform(path)
    except ConfigError as error:
        return Checked([replace(one, field=one.field.removeprefix("platform ")) for one in error.problems], [])
    return Checked([], [])


def _check_keys(directory: Path | None, lags: KeyLags) -> None:
    """Check the signing keys if their directory exists here: settings may be checked on another machine.

    Raises:
        ConfigError: a key is not valid.
    """
    from sidecar.sts.key_files import load_schedule

    if directory is not None and directory.exists():
        load_schedule(directory, int(time.time()), announce_s=lags.announce_s)


def _notes(settings: SidecarSettings) -> Iterator[Problem]:
    """Yield a note for each setting that permits more, or less, than its author may think."""
    for number, route in enumerate(settings.inbound_routes.routes):
        where, observes = f"inbound.routes[{number}]", route.observe_until > 0
        if not route.scopes:
            yield Problem(
                f"{where}.scopes",
                f"is empty: on route {route.name} every delegated token for this workload is enough",
                "list the scopes that the call needs",
            )
        if not route.peers:
            yield Problem(
                f"{where}.peers",
                f"is empty: route {route.name} refuses every peer{' once it observes no longer' * observes}",
                "list the SPIFFE IDs that may call, or remove the route",
            )

    for target in settings.outbound_routes.routes:
        if not target.scopes:
            yield Problem(
                "outbound.routes",
                f"route {target.name} lists no scopes: it refuses every call with a handle, also while it observes",
                "list the scopes that the next hop needs before chains start",
            )
    yield from _find_unmatched(settings)
    now = int(time.time())
    yield from _retirable_keys(settings, now)
    yield from _days_over(settings, now)


def _find_unmatched(settings: SidecarSettings) -> Iterator[Problem]:
    """Yield a note for each row of the deny list that can never match."""
    issuers = {*settings.issuers, *settings.platform_issuers, *(settings.entry.issuers if settings.entry else ())}
    domains = domains_of(settings.issuers.values(), settings.peer_trust_domains)
    for one in unmatched(settings.deny, domains=domains, issuers=issuers):
        yield Problem(f"deny: {one.row}", one.wrong, one.fix)


def _days_over(settings: SidecarSettings, now: int) -> Iterator[Problem]:
    """Yield a note for each date that has passed, because its effect has begun without an error."""
    later = "remove it, or set a later day"
    for number, inbound in enumerate(settings.inbound_routes.routes):
        if 0 < inbound.observe_until <= now:
            where = f"inbound.routes[{number}].observe_until"
            yield Problem(where, f"is over: route {inbound.name} enforces", later)
    calls: tuple[OutboundRoute | OutsideRoute, ...]
    calls = (*settings.outbound_routes.routes, *settings.outbound_routes.outside)
    for call in calls:
        if 0 < call.observe_until <= now:
            yield Problem("outbound.routes", f"the day of route {call.name} is over: it enforces", later)
    for route in settings.outbound_routes.outside:
        if isinstance(route.key, InjectedKey) and route.key.until <= now:
            fix = "put another key into the file and set a later day, or remove the route"
            yield Problem("outbound.routes", f"the day of route {route.name} is over: it refuses every call", fix)
    plain = None if settings.inbound is None else settings.inbound.plain
    if plain is not None and plain.until <= now:
        yield Problem("inbound.plain.until", "is over: the port stays closed", later)


def _retirable_keys(settings: SidecarSettings, now: int) -> Iterator[Problem]:
    """Yield a note for each static key that can be retired.

    Its provider accepts a workload's identity instead, or the key is the agent's and no route observes.
    """
    observing = any(now < route.observe_until for route in settings.inbound_routes.routes)
    if settings.inbound is not None and settings.inbound.agent_key is not None and not observing:
        yield Problem(
            "inbound.agent_key",
            "shows the agent a static key, and no route observes any more",
            "let the agent check none, then remove it",
        )
    for route in settings.outbound_routes.outside:
        provider = provider_at(route.upstream.host) if route.token == "inject" else None  # noqa: S105 - a kind
        if provider is not None:
            yield Problem(
                "outbound.routes",
                f"route {route.name} sends a static key to {route.upstream.host}, and {provider} takes a workload's"
                " identity",
                "let it trust our JWT-SVIDs and write token: federate: that retires the key",
            )


def _count(found: list[Problem], noun: str) -> str:
    return f"1 {noun}" if len(found) == 1 else f"{len(found)} {noun}s"


def _as_json(problem: Problem) -> dict[str, str]:
    return {**asdict(problem), "cure": problem.fix}  # the key's old name, for one release


def _list(found: Iterable[Problem]) -> None:
    for one in found:
        print(f"  {one.field}: {one.wrong}\n      fix: {one.fix}", file=sys.stderr)  # noqa: T201
