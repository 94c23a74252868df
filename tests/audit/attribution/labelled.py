"""Seeded generator of labelled agents over all formats: each has an entry in the list of agents and some log lines.

An impersonator's lines name the user and never the agent as the actor; they hold what misleads a reader who trusts too
much: an actor that is the user, empty, a gateway or the hop before, clients, header fields, forwarded certificates. In
the formats that show no user nobody could tell; few of the impersonators write only those.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.audit.attribution import samples
from tests.audit.attribution.samples import GATEWAY, cloudtrail, entra, kubernetes, text

Line = str | dict[str, Any]


@dataclass(frozen=True)
class Labelled:
    """One agent: its name, its entry in the list, its lines."""

    name: str
    entry: str
    lines: list[str]


@dataclass(frozen=True)
class _Agent:
    name: str
    random: random.Random

    @property
    def spiffe(self) -> str:
        return f"spiffe://example.org/agent/{self.name}"

    @property
    def client(self) -> str:
        return f"{self.name}-client"

    @property
    def account(self) -> str:
        return f"system:serviceaccount:shop:{self.name}"

    @property
    def address(self) -> str:
        number = int(self.name.rpartition("-")[2])
        return f"10.20.{number // 250}.{number % 250 + 1}"

    @property
    def user_agent(self) -> str:
        return f"{self.name}/1.{self.random.randrange(9)}"

    @property
    def entry(self) -> str:
        role = f"arn:aws:iam::111122223333:role/{self.name}"
        return (
            f"{self.name} = {self.spiffe}, {self.client}, {self.account}, {role}, ip:{self.address},"
            f" user-agent:{self.name}/*"
        )


def _user(chance: random.Random) -> str:
    return chance.choice(["alice", "bob@example.org", "carol", "Dave Example", "5d9c-user"])


def _who(agent: _Agent, user: str) -> dict[str, str]:
    """Return values for text formats, in which the agent is known by address or by User-Agent."""
    known = agent.random.choice(["ip", "agent"])
    return {
        "user": user,
        "ip": agent.address if known == "ip" else "10.99.0.1",
        "agent": agent.user_agent if known == "agent" else "python-httpx/0.27",
        "client": agent.client,
        "tool": "orders",
    }


def _known_by(agent: _Agent) -> dict[str, Any]:
    """Return fields by which an agent is known in JSON; none of them makes it an actor."""
    return agent.random.choice(
        [
            {"client_id": agent.client},
            {"azp": agent.client},
            {"peer": agent.spiffe},
            {"remote_addr": agent.address},
            {"user_agent": agent.user_agent},
            {"X-Agent-Id": agent.spiffe, "user_agent": agent.user_agent},
            {"xfcc": f"By=a;URI={agent.spiffe},By=b;Hash=c;URI={GATEWAY}"},
        ]
    )


def _decoy(agent: _Agent, user: str) -> dict[str, Any]:
    """Return fields that name no actor beside the user, or not this agent."""
    return agent.random.choice(
        [
            {},
            {"act": {}},
            {"act": {"sub": user}},
            {"act": {"sub": GATEWAY}},
            {"act": {"sub": GATEWAY, "act": {"sub": agent.spiffe}}},
            {"act": {"act": {"sub": agent.spiffe}}},
            {"may_act": {"sub": agent.spiffe}},
            {"actor": agent.random.choice(["", "-", None, user, user.upper()])},
            {"agent_id": agent.spiffe},
            {"headers": {"act": {"sub": agent.spiffe}}},
        ]
    )


def _generic(agent: _Agent, user: str) -> Line:
    return {"sub": user, "method": "GET", "path": "/", **_known_by(agent), **_decoy(agent, user)}


def _claims_in(line: Callable[..., dict[str, Any]]) -> Callable[[_Agent, str], Line]:
    def made(agent: _Agent, user: str) -> Line:
        decoy = {name: value for name, value in _decoy(agent, user).items() if name in {"act", "may_act"}}
        return line(jwt_payload={"sub": user, **decoy}, **_known_by(agent))

    return made


def _agentgateway_json(agent: _Agent, user: str) -> Line:
    known = agent.random.choice([{"src.identity": agent.spiffe}, {"src.addr": f"{agent.address}:5"}])
    return samples.agentgateway_json(**{"jwt.sub": user}, **known)


def _kubernetes(agent: _Agent, user: str) -> Line:
    known: dict[str, Any] = agent.random.choice([{"userAgent": agent.user_agent}, {"sourceIPs": [agent.address]}])
    more: dict[str, Any] = agent.random.choice([{}, {"impersonatedUser": {"username": user}}])
    return kubernetes(user, **known, **more)


def _cloudtrail(agent: _Agent, user: str) -> Line:
    known: dict[str, Any] = agent.random.choice([{"userAgent": agent.user_agent}, {"sourceIPAddress": agent.address}])
    who = agent.random.choice([samples.iam_user(user), samples.assumed_role("Admin", agent.name)])
    return cloudtrail(who, **known)


def _entra(agent: _Agent, user: str) -> Line:
    known = agent.random.choice([{"appDisplayName": agent.client}, {"ipAddress": agent.address}])
    return entra(userPrincipalName=user, userDisplayName=user, **known)


def _keycloak(agent: _Agent, user: str) -> Line:
    more = agent.random.choice([{}, {"actor": user}, {"subject_token_client_id": "portal"}])
    kind = agent.random.choice(["TOKEN_EXCHANGE", "REFRESH_TOKEN", "LOGIN"])
    return samples.keycloak(kind, agent.client, username=user, **more)


def _toolhive(agent: _Agent, user: str) -> Line:
    chain = agent.random.choice([None, [GATEWAY], [GATEWAY, agent.spiffe], [user]])
    return samples.toolhive(user, chain, source={"type": "network", "value": agent.address, "extra": {}})


def _authbridge(agent: _Agent, user: str) -> Line:
    if agent.random.random() < 0.5:
        return samples.authbridge("inbound", user, tls={"version": "TLS 1.3", "peerSpiffeId": agent.spiffe})
    return samples.authbridge("outbound", user, identity={"subject": user, "clientId": "x", "agentId": agent.spiffe})


def _text(template: str) -> Callable[[_Agent, str], Line]:
    return lambda agent, user: template.format(**_who(agent, user))


def _word(template: str) -> Callable[[_Agent, str], Line]:
    return lambda agent, user: template.format(**{**_who(agent, user.replace(" ", ".")), "ip": agent.address})


_IMPERSONATING: Final[dict[str, Callable[[_Agent, str], Line]]] = {
    "json": _generic,
    "envoy-json": _claims_in(samples.envoy_json),
    "istio-json": _claims_in(samples.istio_json),
    "nginx": _text(samples.COMBINED),
    "nginx-json": lambda agent, user: samples.nginx_json(remote_user=user, remote_addr=agent.address),
    "agentgateway": _word(samples.AGENTGATEWAY),
    "agentgateway-json": _agentgateway_json,
    "kubernetes": _kubernetes,
    "cloudtrail": _cloudtrail,
    "entra": _entra,
    "keycloak": _keycloak,
    "keycloak-log": _text(samples.KEYCLOAK_LOG),
    "toolhive": _toolhive,
    "authbridge": _authbridge,
    "authbridge-log": _word(samples.AUTHBRIDGE_LOG),
    "cef": _text(samples.CEF),
}
_SILENT: Final = (samples.ENVOY, samples.ISTIO, samples.HAPROXY)
_SHARE_SILENT: Final = 0.05


def impersonators(count: int, seed: int) -> list[Labelled]:
    """Return agents that impersonate in every line."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        agent = _Agent(f"agent-{number}", chance)
        if chance.random() < _SHARE_SILENT:
            lines = [chance.choice(_SILENT).format(ip=agent.address, agent=agent.user_agent)]
        else:
            make = _IMPERSONATING[chance.choice(list(_IMPERSONATING))]
            lines = [text(make(agent, _user(chance))) for _ in range(chance.randint(1, 4))]
        found.append(Labelled(agent.name, agent.entry, lines))
    return found


def delegates(count: int, seed: int) -> list[Labelled]:
    """Return agents that are named as the actor in every line."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        agent, user = _Agent(f"agent-{number}", chance), _user(chance)
        act = {"sub": agent.spiffe, "act": {"sub": GATEWAY}}
        lines: list[Line] = [
            {"sub": user, "method": "GET", "path": "/", "act": act, "client_id": "portal"},
            samples.envoy_json(jwt_payload={"sub": user, "act": act}),
            samples.agentgateway_json(**{"jwt.sub": user, "jwt.act": act, "src.identity": agent.spiffe}),
            samples.toolhive(user, [agent.spiffe, GATEWAY]),
            samples.keycloak("TOKEN_EXCHANGE", agent.client, username=user, actor=f"service-account-{agent.client}"),
            kubernetes(agent.account, impersonatedUser={"username": user}),
            cloudtrail(samples.assumed_role(agent.name, "s1", sourceIdentity=user)),
            entra(userPrincipalName=user, appDisplayName=agent.client, agent={"agentType": "agenticAppInstance"}),
        ]
        found.append(Labelled(agent.name, agent.entry, [text(line) for line in chance.sample(lines, 3)]))
    return found
