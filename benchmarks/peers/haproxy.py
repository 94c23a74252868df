"""HAProxy: as a plain mTLS proxy, which is the base of all ratios, and with its own JWT check."""

from __future__ import annotations

import shutil
from typing import Final

from benchmarks.peers.peer import INBOUND, OUTBOUND, Launch, Peer, first_line
from benchmarks.world import AGENT, CALLER, TOOL, World

_LOG: Final = (
    '{\\"ts\\":\\"%tr\\",\\"peer\\":\\"%[ssl_c_serial,hex]\\",\\"client\\":\\"%ci:%cp\\",\\"method\\":\\"%HM\\",'
    '\\"path\\":\\"%HP\\",\\"status\\":%ST,\\"bytes_out\\":%B,\\"total_ms\\":%Ta,\\"upstream_ms\\":%Tr}'
)
_COMMON: Final = """
global
    nbthread 1
    maxconn 8000
    log stdout format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    mode http
    log global
    log-format "{log}"
    option http-keep-alive
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 300s
"""
_INBOUND: Final = """
frontend inbound
    bind {listen} ssl crt {identity} ca-file {bundle} verify required
{rules}    default_backend agent
backend agent
    server agent {agent}
"""
_OUTBOUND: Final = """
frontend outbound
    bind {listen}
    http-request set-header Authorization "Bearer {token}"
    default_backend tool
backend tool
    server tool {tool} ssl crt {identity} ca-file {bundle} verify required
"""
# 2.6 has the check of a signature, but of no claim, and cannot read a URI SAN: the caller's name is written down here.
_JWT: Final = """
    http-request set-var(txn.bearer) http_auth_bearer
    http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str ES256 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{public_key}") 1 }}
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 if {{ var(txn.bearer),jwt_payload_query('$.exp','int'),sub(txn.now) lt 0 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str {audience} }}
    http-request deny deny_status 403 unless {{ var(txn.bearer),jwt_payload_query('$.act.sub') -m str {caller} }}
"""


def plain() -> Peer:
    """The base: mTLS and a log, nothing is known of tokens."""
    return Peer(
        name="haproxy",
        title="HAProxy",
        roles=frozenset({INBOUND, OUTBOUND}),
        does_not=("URI SAN", "any look at the token", "subject and actor in its log", "exchange of tokens"),
        missing=_missing,
        version=_version,
        launch=_plain,
    )


def with_jwt() -> Peer:
    """The signature, exp, aud and act.sub on every request."""
    return Peer(
        name="haproxy-jwt",
        title="HAProxy + jwt_verify",
        roles=frozenset({INBOUND}),
        does_not=(
            "URI SAN: act is compared with one fixed name",
            "cache of verified tokens",
            "subject and actor in its log",
        ),
        missing=_missing,
        version=_version,
        launch=_with_jwt,
        judges=True,
        verifies=True,
    )


def _missing() -> str | None:
    return None if shutil.which("haproxy") else "haproxy is not installed (apt-get install haproxy)"


def _version() -> str:
    return first_line(["haproxy", "-v"])


def _plain(world: World) -> Launch:
    outbound = _OUTBOUND.format(
        listen=world.at("haproxy-outbound"),
        token=world.tokens(1, aud=TOOL)[0],
        tool=world.at("tool"),
        identity=world.identities[AGENT].both,
        bundle=world.bundle,
    )
    return _launch(world, "haproxy", "", outbound)


def _with_jwt(world: World) -> Launch:
    rules = _JWT.format(public_key=world.public_key, audience=AGENT, caller=CALLER)
    return _launch(world, "haproxy-jwt", rules, "")


def _launch(world: World, name: str, rules: str, outbound: str) -> Launch:
    inbound = _INBOUND.format(
        listen=world.at(f"{name}-inbound"),
        identity=world.identities[AGENT].both,
        bundle=world.bundle,
        rules=rules,
        agent=world.at("agent"),
    )
    path = world.folder / f"{name}.cfg"
    path.write_text(_COMMON.format(log=_LOG) + inbound + outbound)
    path.chmod(0o600)
    return Launch(["haproxy", "-f", str(path)])
