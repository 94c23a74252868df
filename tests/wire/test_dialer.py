from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.identity.ssl_object import HandshakeRefused
from sidecar.wire import dialer
from sidecar.wire.dialer import Dialer, Origin


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [("crm.internal", 7443, b"crm.internal:7443"), ("::1", 80, b"[::1]:80"), ("10.0.0.1", 443, b"10.0.0.1:443")],
)
def test_the_authority_of_an_origin_names_host_and_port(host: str, port: int, expected: bytes) -> None:
    assert Origin(host, port, key="k").authority == expected


class Names:
    """A resolver that knows one name's addresses. ``doubted`` are the names to be looked up again."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self.doubted: list[str] = []

    async def addresses(self, _host: str) -> tuple[str, ...]:
        return self._addresses

    def doubt(self, host: str) -> None:
        self.doubted.append(host)


class Scripted(Dialer):
    """Connects to an address, or fails by its error, or is silent (None)."""

    def __init__(self, **results: str | Exception | None) -> None:
        self.names = Names(*results)
        resolver: Any = self.names
        super().__init__(resolver, timeout_s=0.05, delay_s=3600.0)
        self._results = results
        self.tried: list[str] = []

    async def _create(self, origin: Origin, make: Any, **where: Any) -> Any:
        address = where.get("host") or where["sock"]
        self.tried.append(address)
        result = self._results[address]
        if result is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(result, Exception):
            raise result
        return result


ORIGIN = Origin("crm.example", 443, "key")


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(address: str, _port: int) -> str:
        return address

    monkeypatch.setattr(dialer, "connect", connect)


def because(error: OSError, cause: Exception) -> OSError:
    error.__cause__ = cause
    return error


def by_openssl(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, "secret")
    error.reason = reason  # type: ignore[assignment]  # the library leaves it out where it knows none
    return error


FAILURES: dict[str, tuple[OSError | None, type[SidecarError], Reason, str]] = {
    "refused": (ConnectionRefusedError(), Unavailable, Reason.UPSTREAM_UNREACHABLE, "ConnectionRefusedError"),
    "silent": (None, Unavailable, Reason.UPSTREAM_TIMEOUT, "no connection in time"),
    "closed in the handshake": (ssl.SSLEOFError(8, "EOF"), Unavailable, Reason.UPSTREAM_UNREACHABLE, "the upstream"),
    "closed orderly in the handshake": (
        ssl.SSLZeroReturnError(6, "closed"), Unavailable, Reason.UPSTREAM_UNREACHABLE, "the upstream"
    ),
    "another peer": (
        HandshakeRefused(Reason.UPSTREAM_IDENTITY, "another peer"), Denied, Reason.UPSTREAM_IDENTITY, "another peer"
    ),
    "no TLS": (by_openssl("WRONG_VERSION_NUMBER"), Denied, Reason.UPSTREAM_IDENTITY, "WRONG_VERSION_NUMBER"),
    "no known cause": (by_openssl(None), Denied, Reason.UPSTREAM_IDENTITY, "no cause is known"),
    "our own shortage": (
        because(ConnectionAbortedError(), Unavailable(Reason.OVERLOADED, "too many")),
        Unavailable, Reason.OVERLOADED, "too many",
    ),
    "our own identity is gone": (
        because(ssl.SSLError(1, "secret"), Unavailable(Reason.NOT_READY, "none")),
        Unavailable, Reason.NOT_READY, "none",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "reason", "detail"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_connection_that_fails_says_whose_fault_it_is(
    error: OSError | None, kind: type[SidecarError], reason: Reason, detail: str
) -> None:
    scripted = Scripted(a=error)
    with pytest.raises(kind) as failed:
        await scripted.dial(ORIGIN, asyncio.Protocol)
    assert failed.value.reason is reason
    assert detail in failed.value.detail
    assert "secret" not in failed.value.detail
    assert scripted.names.doubted == ["crm.example"]


@pytest.mark.usefixtures("connected")
async def test_an_address_that_fails_after_it_connected_gives_way_to_the_next() -> None:
    for failure in (ConnectionResetError(), None, ssl.SSLEOFError(8, "EOF")):
        scripted = Scripted(a=failure, b="connection")
        made: Any = await scripted.dial(ORIGIN, asyncio.Protocol)
        assert (made, scripted.tried, scripted.names.doubted) == ("connection", ["a", "b"], [])


@pytest.mark.usefixtures("connected")
async def test_an_address_at_which_another_peer_answers_does_not() -> None:
    scripted = Scripted(a=HandshakeRefused(Reason.UPSTREAM_IDENTITY, "another peer"), b="connection")
    with pytest.raises(Denied) as failed:
        await scripted.dial(ORIGIN, asyncio.Protocol)
    assert (failed.value.reason, scripted.tried) == (Reason.UPSTREAM_IDENTITY, ["a"])


@pytest.mark.usefixtures("connected")
async def test_when_every_address_fails_the_last_failure_is_told() -> None:
    scripted = Scripted(a=ConnectionResetError(), b=ConnectionRefusedError())
    with pytest.raises(Unavailable) as failed:
        await scripted.dial(ORIGIN, asyncio.Protocol)
    assert (failed.value.detail, scripted.tried) == ("ConnectionRefusedError", ["a", "b"])


async def test_a_name_with_one_address_that_is_not_admitted_is_not_dialled() -> None:
    origin = Origin("crm.example", 443, "key", admits=lambda address: address != "b")
    scripted = Scripted(a="connection", b="connection")
    with pytest.raises(Denied) as refused:
        await scripted.dial(origin, asyncio.Protocol)
    assert (refused.value.reason, scripted.tried) == (Reason.TARGET_DENIED, [])
    made: Any = await Scripted(a="connection").dial(origin, asyncio.Protocol)
    assert made == "connection"
