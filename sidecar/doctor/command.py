"""``sidecar sts doctor``: probes a token service with two test clients, and reports if it supports delegation.

Exit codes: 0 it does, 1 it does not or evidence is missing, 2 usage, no metadata, or the requests were not approved.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from dataclasses import replace
from typing import Final

from delegation_core.console.examples import add_examples
from delegation_core.console.output import complain, visible
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_JWT
from sidecar.doctor.case import Case, Server
from sidecar.doctor.clients import Method, client_of, token_of
from sidecar.doctor.discovery import DiscoveryError, discover, keys_of, usable
from sidecar.doctor.drive import drive, plan_requests
from sidecar.doctor.messages import Answer, Held, Request
from sidecar.doctor.probes import examine
from sidecar.doctor.report import Veil, show
from sidecar.doctor.transport import Transport

_COMMAND: Final = "sidecar sts doctor"
_TYPES: Final = {"access_token": TOKEN_TYPE_ACCESS_TOKEN, "id_token": TOKEN_TYPE_ID_TOKEN, "jwt": TOKEN_TYPE_JWT}
_NOISE_BYTES: Final = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    clients = (
        "--client agent-a client_secret_basic a.secret --client agent-b client_secret_basic b.secret"
        " --subject user.token"
    )
    add_examples(
        parser,
        f"sidecar sts doctor https://login.acme.example {clients}",
        f"sidecar sts doctor https://login.acme.example {clients} --scope crm.read --wider-scope crm.write"
        " --audience tool-crm --audience tool-mail",
        "sidecar sts doctor https://login.acme.example --client agent-a private_key_jwt a.pem"
        " --client agent-b tls_client_auth b.pem b.key --subject user.token --foreign-actor svid.jwt --yes --json",
    )
    parser.add_argument("issuer", metavar="URL", help="the issuer; its metadata names the endpoints")
    parser.add_argument(
        "--client",
        nargs="+",
        action="append",
        required=True,
        metavar="WORD",
        help=f"ID METHOD FILE: a test client, at least two; methods: {', '.join(Method)} (certificate and key file)",
    )
    parser.add_argument("--subject", required=True, metavar="FILE", help="a user's token that client 1 may exchange")
    parser.add_argument(
        "--subject-type",
        type=_type_of,
        default="access_token",
        metavar="TYPE",
        help=f"its type: {', '.join(sorted(_TYPES))}, or a URN (default %(default)s)",
    )
    names = parser.add_argument_group("what the server knows", "each allows more probes")
    names.add_argument("--scope", metavar="SCOPES", help="scopes to ask for, which the subject token has")
    names.add_argument("--wider-scope", action="append", default=[], metavar="SCOPE", help="one that it lacks")
    names.add_argument("--hop-scope", metavar="SCOPES", help="scopes of a token for client 2 (default: --scope)")
    names.add_argument("--audience", action="append", default=[], metavar="NAME", help="a known target; two are better")
    names.add_argument("--resource", metavar="URI", help="a known resource (RFC 8707)")
    tokens = parser.add_argument_group("more tokens, each in a file")
    tokens.add_argument("--actor", metavar="FILE", help="client 1's actor token (default: by client credentials)")
    tokens.add_argument("--other-actor", metavar="FILE", help="client 2's actor token (default: the same)")
    tokens.add_argument("--foreign-actor", metavar="FILE", help="a JWT of another issuer, such as a JWT-SVID")
    tokens.add_argument("--may-act-subject", metavar="FILE", help="a user's token with may_act")
    server = parser.add_argument_group("the server")
    server.add_argument("--token-endpoint", metavar="URL", help="instead of metadata")
    server.add_argument("--introspection-endpoint", metavar="URL", help="instead of the one of the metadata")
    server.add_argument("--revocation-endpoint", metavar="URL", help="instead of the one of the metadata")
    server.add_argument("--jwks", metavar="URL", help="instead of the one of the metadata")
    server.add_argument("--ca", metavar="FILE", help="authorities of its certificate (default: the system's)")
    server.add_argument("--assertion-audience", metavar="AUD", help="aud of signed assertions (default: the issuer)")
    server.add_argument("--timeout", type=float, default=10.0, metavar="S", help="for each request (default 10)")
    parser.add_argument("--wait", type=float, default=3.0, metavar="S", help="before the second exchange (default 3)")
    parser.add_argument("--yes", action="store_true", help="send the requests without asking")
    parser.add_argument("--evidence", action="store_true", help="print the answers behind each verdict")
    parser.add_argument("--json", action="store_true", help="for machines")


def _type_of(text: str) -> str:
    if text not in _TYPES and not text.startswith("urn:"):
        raise argparse.ArgumentTypeError(f"it is none of {', '.join(sorted(_TYPES))}, and no URN")
    return _TYPES.get(text, text)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    try:
        case = case_of(arguments)
        return asyncio.run(_run(case, arguments))
    except (ValueError, OSError, DiscoveryError) as error:
        return complain(_COMMAND, str(error))


def case_of(arguments: argparse.Namespace) -> Case:
    """Build the case from the options, with the parts of the server that they set.

    Raises:
        ValueError: options contradict each other, or a URL or a file is unusable.
        OSError: a file cannot be read.
    """
    clients = [client_of(words) for words in arguments.client]
    if len(clients) < 2 or clients[0].client_id == clients[1].client_id:
        raise ValueError("--client: two clients with different IDs are needed, to tell who is named as actor")
    subject_type = _type_of(arguments.subject_type)
    issuer = usable(arguments.issuer, "URL")
    given = {
        name: None if url is None else usable(url, f"--{name.replace('_', '-')}")
        for name in ("token_endpoint", "introspection_endpoint", "revocation_endpoint", "jwks")
        for url in (getattr(arguments, name),)
    }
    return Case(
        server=Server(
            token=given["token_endpoint"] or "",
            issuer=issuer,
            introspection=given["introspection_endpoint"],
            revocation=given["revocation_endpoint"],
            jwks=given["jwks"],
        ),
        clients=(clients[0], clients[1]),
        more_clients=tuple(clients[2:]),
        subject=Held(token_of(arguments.subject), "subject", subject_type),
        actors=(
            _load_held(arguments.actor, "actor of client 1", TOKEN_TYPE_JWT),
            _load_held(arguments.other_actor, "actor of client 2", TOKEN_TYPE_JWT),
        ),
        foreign=_load_held(arguments.foreign_actor, "foreign JWT", TOKEN_TYPE_JWT),
        may_act=_load_held(arguments.may_act_subject, "subject with may_act", subject_type),
        scope=arguments.scope,
        hop_scope=arguments.hop_scope,
        wider=tuple(arguments.wider_scope),
        audiences=tuple(arguments.audience),
        resource=arguments.resource,
        wait_s=max(2.0, arguments.wait),
        noise=secrets.token_hex(_NOISE_BYTES),
    )


def _load_held(path: str | None, name: str, kind: str) -> Held | None:
    return None if path is None else Held(token_of(path), name, kind)


async def _run(case: Case, arguments: argparse.Namespace) -> int:
    log: list[tuple[Request, Answer]] = []
    veil = _veil_of(case)
    quiet = arguments.json

    def told(request: Request, answer: Answer) -> None:
        log.append((request, answer))
        veil.add(*(answer.issued,) if answer.issued else ())
        if not quiet:
            _say(f"{len(log):3}  {request.name}: {answer.told}", veil)

    transport = Transport(
        case.server,
        ca_file=arguments.ca,
        timeout_s=arguments.timeout,
        assertion_audience=arguments.assertion_audience,
        told=told,
    )
    async with transport:
        case = await _complete(case, transport)
        transport.server = case.server
        _print_plan(case, veil)
        if not arguments.yes and not await asyncio.to_thread(_approve):
            return complain(_COMMAND, "nothing was sent; --yes approves the requests")
        case = replace(case, keys=await keys_of(case.server, transport.fetch))
        found = await drive(examine(case), transport, asyncio.sleep)
    return 0 if show(found, log, veil, as_json=arguments.json, evidence=arguments.evidence) else 1


async def _complete(case: Case, transport: Transport) -> Case:
    """Complete the case with the server's metadata, unless an option sets the token endpoint. Other options win."""
    given = case.server
    server = given
    if not given.token and given.issuer is not None:
        found = await discover(given.issuer, transport.fetch)
        server = replace(
            found,
            introspection=given.introspection or found.introspection,
            revocation=given.revocation or found.revocation,
            jwks=given.jwks or found.jwks,
            elsewhere=tuple(one for one in found.elsewhere if getattr(given, one[0]) is None),
        )
    return replace(case, server=server)


def _veil_of(case: Case) -> Veil:
    veil = Veil()
    held = (case.subject, *case.actors, case.foreign, case.may_act)
    veil.add(*(one.value for one in held if one is not None))
    veil.add(*(one.secret for one in (*case.clients, *case.more_clients)))
    return veil


def _print_plan(case: Case, veil: Veil) -> None:
    """Print the planned requests to standard error; standard output is for the result."""
    _print_endpoints(case.server)
    requests = plan_requests(examine(case), int(time.time()))
    _say("Requests, which issue real tokens to the test clients:", veil)
    for number, one in enumerate(requests, 1):
        _say(f"{number:3}  {one.name}\n     {one.describe(fingerprints=False)}", veil)
    _say("Where one is refused, it may be sent again with another token type, scope or audience of yours.", veil)
    if case.server.revocation is not None:
        _say("The last ones revoke a token that was issued before. The subject token is not revoked.", veil)


def _print_endpoints(server: Server) -> None:
    """Print the URLs unmasked: masking could hide a host from the person who approves the requests.

    This is safe: no secret was sent yet that metadata could repeat, and URLs have no control characters.
    """
    _print(f"token endpoint: {server.token}")
    if server.introspection is not None:
        _print(f"introspection endpoint, which gets the tokens that cannot be read: {server.introspection}")
    if server.revocation is not None:
        _print(f"revocation endpoint: {server.revocation}")
    if server.jwks is not None:
        _print(f"keys, fetched without a credential: {server.jwks}")
    for name, url in server.elsewhere:
        _print(f"not asked, since its origin is not the token endpoint's (--{name}-endpoint URL allows it): {url}")


def _approve() -> bool:
    """Ask for approval on the terminal. Returns False without a terminal."""
    if not sys.stdin.isatty():
        return False
    print("Send them? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _say(text: str, veil: Veil) -> None:
    for line in text.split("\n"):
        _print(visible(veil.mask(line)))


def _print(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201
