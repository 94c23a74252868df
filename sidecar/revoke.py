"""``sidecar sts revoke``: stop a user, a workload, a chain, a token or a login at every replica of the token service.

The order is signed with the key of the operator's own X.509-SVID and sent over mTLS to each address of the given names.
Each replica answers once the order is on its disk. The command names the replicas that it did not reach: they learn of
the order from another replica later, so send it again or stop the replica.

It must start fast in an emergency, so it imports neither settings nor servers (``tests/test_revoke.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import load_der_private_key

from delegation_core.console.examples import add_examples
from delegation_core.revocation import Kind
from delegation_core.spiffe_id import SpiffeId
from delegation_core.strict_json import parse_object
from sidecar.identity.base_source import BaseSource
from sidecar.identity.endpoint import Endpoint, EndpointAnswer, EndpointError, addresses_of
from sidecar.identity.endpoint_client import EndpointClient
from sidecar.identity.source import Identity
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar.sts.orders import MAX_BOOK_BYTES, ORDER, sign_order

_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SOCKET_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"
_WAIT_FOR_IDENTITY_S: Final = 10.0
_POLL_S: Final = 0.02
_CLOSING_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome at one replica: ``state`` of the order; None: the replica did not accept it.

    ``answered``: the replica answered. ``missing`` are other replicas that may lack the order, according to this one.
    """

    replica: str
    state: str | None
    detail: str = ""
    answered: bool = False
    orders: tuple[Mapping[str, Any], ...] = ()
    missing: tuple[str, ...] = ()
    order_id: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_examples(
        parser,
        "sidecar sts revoke --txn 5b80c1… --reason 'INC-42: prompt injection' --for 8h --to https://sts:7444"
        " --peer spiffe://acme.example/sts",
        "sidecar sts revoke --subject https://login.acme.example alice --alone --reason INC-42 --for 1h"
        " --to https://sts:7444 --peer spiffe://acme.example/sts",
        "sidecar sts revoke --list --to https://sts:7444 --peer spiffe://acme.example/sts",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--subject",
        nargs=2,
        metavar=("ISSUER", "SUB"),
        help="a whole user; needs a second operator (before a hyphen at its beginning goes a space)",
    )
    what.add_argument("--actor", metavar="SPIFFE_ID", help="a workload, as actor of any call")
    what.add_argument(
        "--through",
        metavar="SPIFFE_ID",
        help="a workload, and every chain that it took part in, also as an earlier actor",
    )
    what.add_argument(
        "--txn", metavar="TXN", help="a chain: the txn of its records (--txn=TXN, if it begins with a hyphen)"
    )
    what.add_argument(
        "--jti", metavar="JTI", help="one token, and those exchanged for it (--jti=JTI, if it begins with a hyphen)"
    )
    what.add_argument(
        "--login",
        nargs=2,
        metavar=("ISSUER", "SID"),
        help="one login of a user (before a hyphen at its beginning goes a space)",
    )
    what.add_argument("--confirm", metavar="ID", help="confirm the revocation of a user by another operator")
    what.add_argument("--lift", metavar="ID", help="lift a revocation before its end")
    what.add_argument("--list", action="store_true", help="print the orders of each replica")
    parser.add_argument(
        "--unknown",
        action="store_true",
        help="the issuer or trust domain is one that sidecars trust and the token service does not know",
    )
    parser.add_argument("--alone", action="store_true", help="--subject without a second operator; raises an alert")
    parser.add_argument("--reason", metavar="TEXT", help="for records, never shown to callers")
    parser.add_argument("--for", dest="duration", metavar="TIME", help="until it ends: 30m, 8h, 7d; 31d at most")
    parser.add_argument(
        "--to", nargs="+", metavar="URL", required=True, help="the replicas: all addresses of each name"
    )
    parser.add_argument("--peer", metavar="SPIFFE_ID", required=True, help="SPIFFE ID of the token service")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="for each replica (default 10)")
    parser.add_argument("--json", action="store_true", help="for machines")
    files = parser.add_argument_group("our own SVID", "by default from the Workload API of SPIFFE_ENDPOINT_SOCKET")
    files.add_argument("--svid", metavar="FILE", help="our certificate chain, PEM")
    files.add_argument("--key", metavar="FILE", help="its private key")
    files.add_argument("--bundle", metavar="FILE", help="CA certificates of our trust domain")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Exit codes: 0 every replica has the order, 1 some may lack it, 2 usage."""
    try:
        claims = None if arguments.list else claims_of(arguments, now=int(time.time()), name=secrets.token_hex(16))
        peer = SpiffeId(arguments.peer)
        source = _source(arguments, os.environ)
    except ValueError as error:
        print(f"sidecar sts revoke: {error}", file=sys.stderr)  # noqa: T201 - the command's own output
        return 2
    outcomes = asyncio.run(_send(claims, arguments.to, peer, source, arguments.timeout))
    print(_json(claims, outcomes) if arguments.json else _table(claims, outcomes))  # noqa: T201
    missed = [one.replica for one in outcomes if one.state is None]
    if missed:
        print(f"not reached or refused: {', '.join(missed)}", file=sys.stderr)  # noqa: T201
    lacking = _lacking(outcomes)
    if lacking:
        wrong = f"{', '.join(lacking)} may lack the order: the others send it again every five seconds"
        print(f"{wrong}. Send it there, or stop that replica", file=sys.stderr)  # noqa: T201
    return 1 if missed or lacking else 0


def _lacking(outcomes: list[Outcome]) -> list[str]:
    """Return the replicas that may lack the order: another replica names them, and they did not accept it."""
    accepted = {urlsplit(one.replica).netloc for one in outcomes if one.state is not None}
    return sorted({name for one in outcomes for name in one.missing} - accepted)


def _strip_space(value: str) -> str:
    """Remove the space that a user puts before a leading hyphen, so that it does not begin an option."""
    return value[1:] if value.startswith(" -") else value


def claims_of(arguments: argparse.Namespace, *, now: int, name: str) -> dict[str, object]:
    """Return the claims of the order without issuer and audience.

    Raises:
        ValueError: an option is missing, contradicts another, or is malformed.
    """
    if not arguments.reason:
        raise ValueError("--reason is missing: say why, for the records")
    claims: dict[str, object] = {"jti": name, "iat": now, "reason": arguments.reason}
    of = arguments.confirm or arguments.lift
    if arguments.alone and arguments.subject is None:
        raise ValueError("--alone is for --subject")
    if of is not None:
        if arguments.unknown:
            raise ValueError("--unknown is for a new revocation")
        if arguments.duration is not None:
            raise ValueError("--for is for a new revocation: this one keeps its end")
        return claims | {"action": "confirm" if arguments.confirm else "lift", "of": of}
    match = _DURATION.fullmatch(arguments.duration or "")
    if match is None:
        raise ValueError("--for is missing, or not a time such as 30m, 8h or 7d")
    if arguments.unknown:
        claims["unknown"] = True
    claims |= {"action": "revoke", "until": _minute(now + int(match[1]) * _UNITS[match[2]]), "alone": arguments.alone}
    for kind in Kind:
        given = getattr(arguments, kind)
        if isinstance(given, list):
            claims |= {"kind": kind, "of_issuer": given[0], "value": _strip_space(given[1])}
        elif given is not None:
            claims |= {"kind": kind, "value": given}
    return claims


def _minute(seconds: int) -> int:
    """Round up to a full minute, so that an order sent again soon has the same end."""
    return -(-seconds // 60) * 60


def _source(arguments: argparse.Namespace, environ: Mapping[str, str]) -> BaseSource:
    """Make the source of our SVID, from files or the Workload API. Only its module is imported.

    Raises:
        ValueError: the options contradict each other, a file is not readable, or the variable is missing or invalid.
    """
    given = (arguments.svid, arguments.key, arguments.bundle)
    if all(given):
        from sidecar.identity.file_reader import Present, look_at_all
        from sidecar.identity.files import FileSettings, FileSource

        settings = FileSettings(certificate=Path(given[0]), key=Path(given[1]), bundle=Path(given[2]))
        seen = look_at_all(settings.watched, {}).values()
        if unusable := [one.why for one in seen if not isinstance(one, Present)]:
            raise ValueError(f"{'; '.join(unusable)}: name our SVID with --svid, --key, --bundle")
        return FileSource(settings)
    if any(given):
        raise ValueError("--svid, --key and --bundle belong together")
    address = environ.get(_SOCKET_VARIABLE)
    if not address:
        raise ValueError(
            f"{_SOCKET_VARIABLE} is missing: write unix:///path/of/socket there, or name --svid, --key, --bundle"
        )
    from sidecar.identity.workload_api import WorkloadApiSource

    try:
        return WorkloadApiSource(WorkloadApiSettings(address=address))
    except ValueError as error:
        raise ValueError(f"{_SOCKET_VARIABLE}: {error}") from None


async def _send(
    claims: dict[str, object] | None, names: list[str], peer: SpiffeId, source: BaseSource, timeout_s: float
) -> list[Outcome]:
    running = asyncio.ensure_future(source.run())
    try:
        identity = await _identity(source)
        if identity is None:
            return [Outcome(name, None, f"we have no identity: {source.last_error or 'none came'}") for name in names]
        order = None if claims is None else _sign(claims, identity, peer)
        outcomes: list[Outcome] = []
        urls: list[str] = []
        for name in names:
            try:
                urls += await addresses_of([name])
            except (OSError, ValueError) as error:
                outcomes.append(Outcome(name, None, f"cannot be resolved: {error}"))
        asked = (_ask(url, order, peer, source, timeout_s) for url in dict.fromkeys(urls))
        return [*outcomes, *await asyncio.gather(*asked)]
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await asyncio.sleep(_CLOSING_S)  # aborted TLS transports close in the loop's next iterations


async def _identity(source: BaseSource) -> Identity | None:
    """Wait for our identity; return None after a timeout, or at once for files that are complete but not valid."""
    deadline = time.monotonic() + _WAIT_FOR_IDENTITY_S
    while source.current is None and source.unusable is None and time.monotonic() < deadline:  # noqa: ASYNC110 - no event
        await asyncio.sleep(_POLL_S)
    return source.current


def _sign(claims: dict[str, object], identity: Identity, peer: SpiffeId) -> bytes:
    svid = identity.svid
    key = load_der_private_key(svid.key_der, None)
    order = sign_order({**claims, "iss": svid.spiffe_id, "aud": peer}, key=key, certificate=svid.chain[0])
    return order.encode("ascii")


async def _ask(url: str, order: bytes | None, peer: SpiffeId, source: BaseSource, timeout_s: float) -> Outcome:
    path = "/revocations/orders" if order is None else "/revocations"
    try:
        endpoint = Endpoint(url=f"{url}{path}", peer=peer)
        client = EndpointClient(endpoint, source, timeout_s=timeout_s, max_bytes=MAX_BOOK_BYTES)
    except ValueError as error:
        return Outcome(url, None, str(error))
    try:
        answer = await (client.get() if order is None else client.post(order, ORDER))
        return _outcome(url, answer)
    except (EndpointError, ValueError) as error:
        return Outcome(url, None, str(error))
    finally:
        await client.close()


def _outcome(url: str, answer: EndpointAnswer) -> Outcome:
    members = parse_object(answer.body, max_bytes=MAX_BOOK_BYTES)
    if answer.status != 200:
        told = members.get("detail") or members.get("error_description") or ""
        return Outcome(url, None, f"status {answer.status}: {told}", answered=True)
    orders = members.get("orders")
    if isinstance(orders, list):
        waiting, lifted = members.get("waiting"), {row.get("of") for row in orders if row.get("action") == "lift"}
        waits = waiting if isinstance(waiting, list) else ()
        rows = [{**row, "waits": row.get("id") in waits, "lifted": row.get("id") in lifted} for row in orders]
        return Outcome(url, f"{len(orders)} orders", answered=True, orders=tuple(rows))
    missing = members.get("missing")
    names = tuple(map(str, missing)) if isinstance(missing, list) else ()
    state, order_id = str(members.get("state")), str(members.get("id"))
    return Outcome(url, state, _describe_seen(members), answered=True, missing=names, order_id=order_id)


def _describe_seen(members: Mapping[str, Any]) -> str:
    """Describe when a replica last saw the name of a revocation; empty if the answer does not say."""
    since = members.get("seen_since")
    if since is None:
        return ""
    ends = f"until {_time(members['until'])}; "
    if members.get("seen_at") is not None:
        return f"{ends}this name was last seen here at {_time(members['seen_at'])}"
    alike = members.get("alike")
    hint = "" if alike is None else f"; seen was {alike!a}"
    return f"{ends}this name was NOT SEEN here since {_time(since)}{hint}"


def _time(seconds: object) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(str(seconds))))


def _json(claims: Mapping[str, object] | None, outcomes: list[Outcome]) -> str:
    replicas = [
        {
            "replica": one.replica,
            "state": one.state,
            "id": one.order_id,
            "detail": one.detail or None,
            "orders": list(one.orders),
        }
        for one in outcomes
    ]
    told = {"id": None if claims is None else claims["jti"], "missing": _lacking(outcomes), "replicas": replicas}
    return json.dumps(told, indent=2)


def _table(claims: Mapping[str, object] | None, outcomes: list[Outcome]) -> str:
    width = max((len(one.replica) for one in outcomes), default=0)
    lines = [] if claims is None else [f"order {claims['jti']}"]
    for one in outcomes:
        state = one.state or ("REFUSED" if one.answered else "NOT REACHED")
        lines.append(f"{one.replica:{width}}  {state}  {one.detail}".rstrip())
        if claims is not None and claims["action"] == "revoke" and one.order_id not in (None, claims["jti"]):
            lines.append(
                f"  your order {one.order_id} stops this name already and ends no sooner; to lift, lift that one"
            )
        lines += [f"  {_line(order)}" for order in one.orders]
    if any(one.state == "waiting" for one in outcomes):
        lines.append("It counts once another operator confirms it: sidecar sts revoke --confirm ID")
    return "\n".join(lines)


def _line(order: Mapping[str, Any]) -> str:
    named = " ".join(str(order[name]) for name in ("kind", "issuer", "value") if order.get(name))
    ends = _time(order["expires_at"])
    state = "  LIFTED" if order.get("lifted") else "  waits for a second operator" if order.get("waits") else ""
    return f"{order['id']}  {order['action']} {named}  until {ends}  by {order['operator']}: {order['reason']}{state}"
