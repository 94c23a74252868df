"""Nothing outlives its authority: each cause of an end, against each kind of forwarding, inbound and outbound.

In every test all kinds are in flight for two groups of callers. First comes the twin of the cause, which concerns
nobody, and all continue; then the cause, which concerns one group, and only that one ends, with the reason in its
records.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.proxy.journeys import watch
from sidecar.proxy.journeys.bypass import BypassWatch, ListenerRule, ListeningSocket
from sidecar.proxy.journeys.listening_table import listening_in
from tests.fakes.tokens import TokenMint
from tests.integration.test_lifecycle import distrust_partner, forgot_partner
from tests.integration.test_websocket import reload
from tests.integration.underway import Underway, open_underway, published
from tests.integration.world import PATIENCE_S, Sidecar, until

pytestmark = [pytest.mark.integration]

Step = Callable[[Underway], Awaitable[None]]


@pytest.fixture
async def underway() -> AsyncIterator[Underway]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_underway(Path(folder)) as opened:
            yield opened


def reloaded(change: Callable[[dict[str, Any]], None]) -> Step:
    async def step(underway: Underway) -> None:
        await reload(underway.sidecar, change)

    return step


def deny(**row: str) -> Step:
    return reloaded(lambda document: document.update(deny=[row]))


def route(number: int, **changes: Any) -> Step:
    return reloaded(lambda document: document["inbound"]["routes"][number].update(changes))


def out_route(number: int, **changes: Any) -> Step:
    return reloaded(lambda document: document["outbound"]["routes"][number].update(changes))


def keys(*kids: str) -> Step:
    """Publish exactly these keys, and that of the token service; wait until the sidecar has them."""

    async def step(underway: Underway) -> None:
        world, in_force = underway.hops.world, underway.sidecar.server.parts.snapshots.now().keys
        before = in_force.generation
        numbers = {"k0": 0, "k2": 2, "next": 3}
        made = [published(numbers[kid], kid) for kid in kids if kid in numbers]
        world.keys["keys"] = made + ([TokenMint().jwk] if "sts" in kids else [])
        await until(lambda: in_force.generation > before)

    return step


async def renewed(underway: Underway) -> None:
    """Make a planned rotation: new authorities, the old ones still trusted, and a new SVID of our own."""
    await rotated(underway.sidecar, underway.sidecar.api.registry.rotate)
    for registry in underway.hops.world.registries:
        registry.notify()  # the others learn of the new authorities, and keep their SVIDs


async def rotated(sidecar: Sidecar, change: Callable[[], None]) -> None:
    source = sidecar.server.parts.source
    before = source.current
    change()
    await until(lambda: source.current is not before)


async def nothing(_underway: Underway) -> None:
    """No twin."""


async def partner_distrusted(underway: Underway) -> None:
    distrust_partner(underway.sidecar)
    await until(forgot_partner(underway.sidecar))


async def old_authority_dropped(underway: Underway) -> None:
    """Withdraw our own trust domain's old authority, which signed the planner's SVID."""
    await rotated(underway.sidecar, lambda: drop_old(underway.sidecar))


def drop_old(sidecar: Sidecar) -> None:
    registry = sidecar.api.registry
    registry.authority("acme.example").drop_old()
    registry.notify()


async def closed(underway: Underway) -> None:
    """Serve no new call: the listeners are unknown."""
    server = underway.sidecar.server
    rule = ListenerRule(agent_port=None, refuse=True)
    unreadable = Path("/proc/none")
    server.bypass = BypassWatch(
        lambda: rule, tuple, lambda: [ListeningSocket(*one) for one in listening_in(unreadable, most=1)]
    )
    await until(lambda: server.parts.snapshots.closed is not None)


# name: (the twin, the cause, the group concerned, reason inbound)
INBOUND: dict[str, tuple[Step, Step, str, str]] = {
    "its subject is denied": (deny(subject="mallory"), deny(subject="alice"), "helper", "policy_denied"),
    "its subject is denied while no new call is served": (closed, deny(subject="alice"), "helper", "policy_denied"),
    "its actor is denied": (
        deny(actor="spiffe://acme.example/agent/other"),
        deny(actor="spiffe://partner.example/agent/helper"),
        "helper",
        "policy_denied",
    ),
    "its token is denied": (deny(jti="another"), deny(jti="of-planner"), "planner", "policy_denied"),
    "its route's peers are gone": (route(0, max_calls=7), route(0, peers=[]), "helper", "policy_denied"),
    "its route needs more": (
        route(0, scopes=["docs.write", "crm.read"]),
        route(1, scopes=["mail.send"]),
        "planner",
        "insufficient_scope",
    ),
    "its route is gone": (
        route(0, name="renamed"),
        route(0, match={"path": "/elsewhere", "methods": ["GET", "POST"]}),
        "helper",
        "no_route",
    ),
    "its token's key is withdrawn": (
        keys("k0", "k2", "sts", "next"),
        keys("k2", "sts", "next"),
        "helper",
        "unknown_key",
    ),
    "trust in its peer is withdrawn": (renewed, partner_distrusted, "helper", "unknown_trust_domain"),
    "the authority of its peer is withdrawn": (renewed, old_authority_dropped, "planner", "untrusted_chain"),
}


async def begin(underway: Underway, *directions: str) -> None:
    for group in ("helper", "planner"):
        if "outbound" in directions:
            await underway.hold(group)
        for direction in directions:
            await underway.begin(direction, group)


async def both_go_on(underway: Underway, direction: str) -> None:
    await underway.look()
    for group in ("helper", "planner"):
        await underway.go_on(direction, group)


@pytest.mark.parametrize(("twin", "cause", "group", "reason"), INBOUND.values(), ids=INBOUND.keys())
async def test_inbound_everything_ends_when_it_would_be_refused_and_nothing_else_does(
    underway: Underway, twin: Step, cause: Step, group: str, reason: str
) -> None:
    await begin(underway, "inbound")
    await twin(underway)
    await both_go_on(underway, "inbound")
    await cause(underway)
    await underway.ended("inbound", group, reason)
    await underway.look()
    await underway.go_on("inbound", "planner" if group == "helper" else "helper")


# name: (the twin, the cause, the group whose calls are concerned, reason outbound)
OUTBOUND: dict[str, tuple[Step, Step, str, str]] = {
    "its subject is denied": (deny(subject="mallory"), deny(subject="alice"), "helper", "policy_denied"),
    "its subject is denied while no new call is served": (closed, deny(subject="alice"), "helper", "policy_denied"),
    "the actor of its request is denied": (
        deny(actor="spiffe://acme.example/agent/other"),
        deny(actor="spiffe://partner.example/agent/helper"),
        "helper",
        "policy_denied",
    ),
    "its request's route has no peers": (route(0, max_calls=7), route(0, peers=[]), "helper", "policy_denied"),
    "its request's route opens it no more": (
        route(0, may_call=["crm"]),
        route(0, may_call=["mail"]),
        "helper",
        "call_not_allowed",
    ),
    "its route has less to ask for": (
        out_route(0, scopes=["crm.read", "docs.write"]),
        out_route(1, scopes=["mail.send"]),
        "planner",
        "insufficient_scope",
    ),
    "its route is gone": (
        out_route(0, match={"host": "other.mesh"}),
        out_route(0, upstream="https://127.0.0.1:9"),
        "helper",
        "target_denied",
    ),
    "the key of its request's token is withdrawn": (
        keys("k0", "k2", "sts", "next"),
        keys("k2", "sts", "next"),
        "helper",
        "unknown_key",
    ),
    "trust in the peer of its request is withdrawn": (renewed, partner_distrusted, "helper", "unknown_trust_domain"),
}


@pytest.mark.parametrize(("twin", "cause", "group", "reason"), OUTBOUND.values(), ids=OUTBOUND.keys())
async def test_outbound_everything_ends_when_it_would_be_refused_and_nothing_else_does(
    underway: Underway, twin: Step, cause: Step, group: str, reason: str
) -> None:
    await begin(underway, "outbound")
    await twin(underway)
    await both_go_on(underway, "outbound")
    await cause(underway)
    await underway.ended("outbound", group, reason)
    await underway.look()
    await underway.go_on("outbound", "planner" if group == "helper" else "helper")


@pytest.mark.parametrize(("direction", "said"), [("outbound", b"HTTP/1.1 403 Forbidden"), ("inbound", b"")])
async def test_an_agent_is_told_that_trust_has_ended_and_a_peer_without_trust_is_told_nothing(
    underway: Underway, direction: str, said: bytes
) -> None:
    await begin(underway, direction)
    upload = underway.forwarded[direction, "helper"][0]
    await partner_distrusted(underway)
    last = await upload.ended()
    assert last.split(b"\r\n")[0] == said
    assert (b"delegation-reason: unknown_trust_domain" in last) == bool(said)


async def identity_withdrawn(underway: Underway) -> None:
    await rotated(underway.sidecar, lambda: underway.sidecar.api.registry.replace_entries([]))


async def identity_renewed(underway: Underway) -> None:
    """Renew the SVID by the same authority, and then by another one."""
    registry = underway.sidecar.api.registry
    (entry,) = registry.entries
    await rotated(underway.sidecar, lambda: registry.replace_entries([replace(entry, ttl_s=entry.ttl_s - 1)]))
    await renewed(underway)


# name: (the twin, the cause, direction, reason)
ALL_OF_THEM: dict[str, tuple[Step, Step, str, str]] = {
    "inbound: our identity is withdrawn": (identity_renewed, identity_withdrawn, "inbound", "not_ready"),
    "outbound: our identity is withdrawn": (identity_renewed, identity_withdrawn, "outbound", "not_ready"),
    "outbound: the token service's key is withdrawn": (
        keys("k0", "k2", "sts", "next"),
        keys("k0", "k2", "next"),
        "outbound",
        "unknown_key",
    ),
    "outbound: the authority of the next hop is withdrawn": (
        renewed,
        old_authority_dropped,
        "outbound",
        "untrusted_chain",
    ),
}


@pytest.mark.parametrize(("twin", "cause", "direction", "reason"), ALL_OF_THEM.values(), ids=ALL_OF_THEM.keys())
async def test_what_concerns_everybody_ends_everything(
    underway: Underway, twin: Step, cause: Step, direction: str, reason: str
) -> None:
    await begin(underway, direction)
    await twin(underway)
    await both_go_on(underway, direction)
    await cause(underway)
    for group in ("helper", "planner"):
        await underway.ended(direction, group, reason)
    assert underway.sidecar.server.parts.watch.count()[direction] == 0


# --- expiry


async def test_expiry_ends_streams_with_their_token_and_uploads_and_answers_at_their_own_limits() -> None:
    """The planner's tokens expire in a moment; limits are short for uploads, and long for answers."""

    def short(document: dict[str, Any]) -> None:
        document["inbound"]["limits"] = {"max_upload_s": 2.5}

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_underway(Path(folder), short) as underway:
            await underway.begin("inbound", "helper")
            expires_at = int(time.time()) + 2
            await underway.begin("inbound", "planner", exp=expires_at)
            upload, answer, post, events, websocket = underway.forwarded["inbound", "planner"]
            for one in (events, websocket):
                await one.ended()
            assert time.time() >= expires_at
            last = await upload.ended()
            assert b"408" in last.split(b"\r\n")[0]
            assert b"delegation-reason: timeout" in last
            for one in (answer, post):
                await one.pass_on(b"still")
            await underway.go_on("inbound", "helper")
            ended = {(record["method"], record["status"]): record["reason"] for record in underway.sidecar.records()}
            assert ended == {("GET", 200): "token_expired", ("GET", 101): "token_expired", ("POST", 408): "timeout"}


async def test_an_upload_within_its_token_may_take_longer_than_max_upload_s() -> None:
    def short(document: dict[str, Any]) -> None:
        document["inbound"]["limits"] = {"max_upload_s": 0.1}

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_underway(Path(folder), short) as underway:
            await underway.begin("inbound", "planner", ("upload",))
            (upload,) = underway.forwarded["inbound", "planner"]
            watch = underway.sidecar.server.parts.watch
            began_at = watch.monotonic()
            await until(lambda: watch.monotonic() > began_at + 0.6)
            await upload.pass_on(b"still")


# --- handles


HANDLES: dict[str, tuple[Step, Step, tuple[int, str]]] = {
    "trust in its peer is withdrawn": (renewed, partner_distrusted, (403, "no_request_context")),
    "its peer may no longer call": (route(0, max_calls=900), route(0, peers=[]), (403, "policy_denied")),
    "its subject is denied": (deny(subject="mallory"), deny(subject="alice"), (403, "policy_denied")),
    "its token's key is withdrawn": (
        keys("k0", "k2", "sts", "next"),
        keys("k2", "sts", "next"),
        (401, "unknown_key"),
    ),
}


@pytest.mark.parametrize("lingers", [False, True], ids=["its request is served", "it lingers"])
@pytest.mark.parametrize(("twin", "cause", "told"), HANDLES.values(), ids=HANDLES.keys())
async def test_a_handle_dies_with_the_authority_of_its_request(
    twin: Step, cause: Step, told: tuple[int, str], lingers: bool
) -> None:
    def linger(document: dict[str, Any]) -> None:
        for one in document["inbound"]["routes"]:
            one["linger_s"] = 600

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_underway(Path(folder), linger) as underway:
            for group in ("helper", "planner"):
                await underway.hold(group)
                if lingers:
                    underway.held[group].behind.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                    await until(lambda g=group: underway.lingers(g))  # type: ignore[misc]
            await twin(underway)
            for group in ("helper", "planner"):
                async with asyncio.timeout(PATIENCE_S):
                    while await underway.call(group) != (200, None):  # the next hop does not know the new authority yet
                        pass
            await cause(underway)
            assert await underway.call("helper") == told
            assert await underway.call("planner") == (200, None)
            assert (await underway.call("helper"))[0] == 403  # permanently, or because of the denial


async def test_a_withdrawn_key_ends_a_handle_when_it_is_fetched_and_not_a_tick_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "TICK_S", 3600.0)

    def linger(document: dict[str, Any]) -> None:
        for one in document["inbound"]["routes"]:
            one["linger_s"] = 600

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_underway(Path(folder), linger) as underway:
            await underway.hold("helper")
            underway.held["helper"].behind.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            await until(lambda: underway.lingers("helper"))
            assert await underway.call("helper") == (200, None)  # its token is cached: later calls wait for nothing
            await keys("k2", "sts", "next")(underway)
            assert await underway.call("helper") == (401, "unknown_key")
            assert (await underway.call("helper"))[0] == 403


# --- requests that wait before they begin


async def test_a_call_that_is_denied_while_it_waits_for_its_token_never_begins(underway: Underway) -> None:
    for group in ("helper", "planner"):
        await underway.hold(group)
    sts = underway.hops.sts
    sts.hold()
    waiting = {group: asyncio.ensure_future(underway.call(group)) for group in ("helper", "planner")}
    await sts.wait_for_requests(2)
    await route(0, peers=[])(underway)  # which no plan of an exchange reads
    sts.release()
    assert await waiting["planner"] == (200, None)
    assert await waiting["helper"] == (403, "policy_denied")
    assert underway.far["crm"].taken == []
