"""HAProxy: as a plain mTLS proxy, which is the base of all ratios, and with its own JWT check."""

from __future__ import annotations

from typing import Final

from benchmarks.peers.agents import chain_roles, links, relays
from benchmarks.peers.binaries import find, missing
from benchmarks.peers.peer import (
    AGENTS,
    CHAINS,
    GRPC,
    HTTP2,
    HTTP2_OPEN,
    INBOUND,
    NARROW,
    OUTBOUND,
    OVER_HTTP2,
    Part,
    Peer,
    Role,
    first_line,
    single,
)
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
    bind {listen} ssl crt {identity} ca-file {bundle} verify required{alpn}
{rules}    default_backend agent
backend agent
    server agent {agent}
"""
_OUTBOUND: Final = """
frontend outbound
    bind {listen}
    http-request set-header Authorization "Bearer {token}"
    default_backend next
backend next
    server next {next} ssl crt {identity} ca-file {bundle} verify required
"""
# 2.6 checks signatures but no claims, and cannot read a URI SAN: the caller's name is written down here.
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
    """The base: mTLS and a log, without tokens."""
    return Peer(
        name="haproxy",
        title="HAProxy",
        roles={
            # It has no limit of handshakes, and no routes.
            **dict.fromkeys((INBOUND, NARROW, AGENTS), Role(port="haproxy-inbound", counted=("haproxy",))),
            **{role: Role(port=f"haproxy-{role}-inbound", counted=(f"haproxy-{role}",)) for role in sorted(OVER_HTTP2)},
            OUTBOUND: Role(port="haproxy-outbound", counted=("haproxy",)),
            **chain_roles("haproxy"),
        },
        does_not=("URI SAN", "any look at the token", "subject and actor in its log", "exchange of tokens"),
        missing=lambda: missing("haproxy", "apt-get install haproxy"),
        version=_version,
        parts=_plain,
    )


def with_jwt() -> Peer:
    """The signature, exp, aud and act.sub on every request."""
    return single(
        "haproxy-jwt",
        "HAProxy + jwt_verify",
        does_not=(
            "URI SAN: act is compared with one fixed name",
            "cache of verified tokens",
            "subject and actor in its log",
        ),
        missing=lambda: missing("haproxy", "apt-get install haproxy"),
        version=_version,
        launch=lambda world: _over(world, "haproxy-jwt", _jwt_rules(world), http2=False),
        over_http2=dict.fromkeys((HTTP2, HTTP2_OPEN), lambda world, name: _over(world, name, _jwt_rules(world))),
        judges=True,
    )


def _version() -> str:
    return first_line([find("haproxy") or "haproxy", "-v"])


def _plain(world: World, roles: frozenset[str]) -> list[Part]:
    def hop(name: str, identity: str, *, inbound: str = "", agent: str = "", outbound: str = "", to: str = "") -> Part:
        sections = _inbound(world, identity, inbound, agent) if inbound else ""
        sections += _outbound(world, identity, outbound, to) if outbound else ""
        return _part(world, name, sections, tuple(port for port in (inbound, outbound) if port))

    parts = []
    if roles & {INBOUND, NARROW, AGENTS, OUTBOUND}:
        ports = {"inbound": "haproxy-inbound", "outbound": "haproxy-outbound"}
        parts.append(hop("haproxy", AGENT, agent="agent", to="tool", **ports))
    parts += [_over(world, f"haproxy-{role}", "", agent=_agent(role)) for role in sorted(roles & OVER_HTTP2)]
    for role in sorted(roles & CHAINS.keys()):
        for link in links("haproxy", role):
            inbound, outbound = f"{link.process}-inbound", f"{link.process}-outbound"
            ports = {"inbound": inbound, "agent": link.agent} if link.agent else {}
            ports |= {"outbound": outbound, "to": link.to} if link.to else {}
            parts.append(hop(link.process, link.own, **ports))
        parts += relays(world, "haproxy", role)
    return parts


def pod(world: World, name: str) -> Part:
    """One HAProxy of many: mTLS and a log."""
    return _part(world, name, _inbound(world, AGENT, f"{name}-inbound", "agent"), (f"{name}-inbound",))


def pod_with_tickets(world: World, name: str) -> Part:
    """The same, but it resumes sessions."""
    part = pod(world, name)
    path = world.folder / f"{name}.cfg"
    path.write_text(path.read_text().replace(" no-tls-tickets", ""))
    return part


def _jwt_rules(world: World) -> str:
    return _JWT.format(public_key=world.public_key, audience=AGENT, caller=CALLER)


def _over(world: World, name: str, rules: str, *, agent: str = "agent", http2: bool = True) -> Part:
    """Return a process with an inbound side only."""
    alpn = " alpn h2,http/1.1" if http2 else ""
    sections = _inbound(world, AGENT, f"{name}-inbound", agent, rules, alpn)
    return _part(world, name, sections, (f"{name}-inbound",))


def _agent(role: str) -> str:
    return "agent-h2c" if role == GRPC else "agent"


def _inbound(world: World, identity: str, listen: str, agent: str, rules: str = "", alpn: str = "") -> str:
    return _INBOUND.format(
        listen=world.at(listen),
        identity=world.identities[identity].both,
        bundle=world.bundle,
        rules=rules,
        alpn=alpn,
        agent=world.at(agent) + (" proto h2" if agent == "agent-h2c" else ""),
    )


def _outbound(world: World, identity: str, listen: str, to: str) -> str:
    return _OUTBOUND.format(
        listen=world.at(listen),
        token=world.tokens(1, aud=TOOL)[0],
        next=world.at(to),
        identity=world.identities[identity].both,
        bundle=world.bundle,
    )


def _part(world: World, name: str, sections: str, listens: tuple[str, ...]) -> Part:
    path = world.folder / f"{name}.cfg"
    path.touch(mode=0o600)
    path.write_text(_COMMON.format(log=_LOG) + sections)
    return Part(name=name, command=[find("haproxy") or "haproxy", "-f", str(path)], listens=listens)
