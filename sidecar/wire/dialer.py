"""One new upstream connection: name → addresses → TCP → TLS, within one deadline for all of it.

A dead address does not fail the call: the next one is tried. An address that answers with another identity fails it:
skipping it would hide an attacker who can add addresses to DNS. Only a connection that proves
the pinned identity carries a request in any case.

Several addresses of a name are raced (RFC 8305). uvloop's ``create_connection`` tries addresses one after another, each
for as long as the system likes, and has no race like the standard library's. The race here is for TCP alone: TLS begins
on the connection that won, as two handshakes for one call would double the work of an upstream that is slow because it
is busy.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.resolver import Resolver

MAX_ADDRESSES: Final = 8  # tried per name and connection
_LAST_FOR_S: Final = 30.0  # an address that lost a race is tried last for this long

P = TypeVar("P", bound=asyncio.Protocol)
ATTEMPT_DELAY_S: Final = 0.25  # RFC 8305 section 8

Connect = Callable[[str], Coroutine[Any, Any, socket.socket]]


def interleaved(addresses: Sequence[str]) -> list[str]:
    """Alternate address families, beginning with that of the first address (RFC 8305 section 4)."""
    first_is_v6 = bool(addresses) and ":" in addresses[0]
    first = [address for address in addresses if (":" in address) is first_is_v6]
    other = [address for address in addresses if (":" in address) is not first_is_v6]
    both = min(len(first), len(other))
    turns = [address for pair in zip(first, other, strict=False) for address in pair]
    return turns + first[both:] + other[both:]


async def connect(address: str, port: int) -> socket.socket:
    """Open a TCP connection to an IP literal.

    Raises:
        OSError: it failed.
    """
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)  # noqa: FBT003 - the library's signature
        await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


class Race:
    """A race of addresses. ``beaten``: the addresses that failed, or were still connecting at its end."""

    def __init__(self, addresses: Sequence[str], connect: Connect, *, delay_s: float = ATTEMPT_DELAY_S) -> None:
        self._waiting = list(addresses)
        self._connect = connect
        self._delay_s = delay_s
        self._running: dict[asyncio.Task[socket.socket], str] = {}
        self.beaten: list[str] = []

    async def win(self) -> tuple[str, socket.socket]:
        """Return the first address that connects, and its socket; close the others.

        Raises:
            OSError: no address connects: the error of the last one.
        """
        failure: OSError = OSError("no address")
        try:
            while self._waiting or self._running:
                self._begin_next()
                delay_s = self._delay_s if self._waiting else None
                done, _ = await asyncio.wait(self._running, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        made = task.result()
                    except OSError as error:
                        failure = error
                        self.beaten.append(self._running.pop(task))
                    else:
                        return self._running.pop(task), made
            raise failure
        finally:
            self.beaten += self._running.values()
            await self._close_the_rest()

    def _begin_next(self) -> None:
        """Start connecting to the next address: the previous one failed, or used up its head start."""
        if self._waiting:
            address = self._waiting.pop(0)
            task = asyncio.get_running_loop().create_task(self._connect(address))
            self._running[task] = address

    async def _close_the_rest(self) -> None:
        rest = tuple(self._running)
        self._running.clear()
        for task in rest:
            task.cancel()
            task.add_done_callback(_close_late)
        if rest:
            await asyncio.wait(rest)


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


@dataclass(frozen=True, slots=True)
class Origin:
    """Destination of requests. Connections are shared by equal ``key``: host, port, peer identity, own identity …

    ``still_good`` is called before each use of a connection, including the first: the peer's identity may have expired.
    ``life_s`` is called once per new connection and returns its maximum age in seconds, from both ends' identities.
    ``authority`` is the Host of its requests (RFC 9112 section 3.2). ``admits`` is called for each resolved address;
    one refused address refuses the name. ``http2``: with ``alpn`` the upstream may choose HTTP/2; with ``prior``
    knowledge it speaks only HTTP/2. It is part of ``key``.
    """

    host: str
    port: int
    key: Hashable
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    server_name: str | None = None
    still_good: Callable[[asyncio.BaseTransport], bool] | None = field(default=None, repr=False)
    life_s: Callable[[asyncio.BaseTransport], float] | None = field(default=None, repr=False)
    admits: Callable[[str], bool] | None = field(default=None, repr=False)
    http2: Literal["", "alpn", "prior"] = ""
    authority: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        object.__setattr__(self, "authority", f"{host}:{self.port}".encode("ascii"))


class Dialer:
    """Opens connections. Times in seconds; ``clock`` is monotonic."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        timeout_s: float,
        delay_s: float = ATTEMPT_DELAY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver = resolver
        self._timeout_s = timeout_s
        self._delay_s = delay_s
        self._clock = clock
        self._beaten_at: dict[tuple[str, int], float] = {}

    async def dial(self, origin: Origin, make: Callable[[], P]) -> P:
        """Return the protocol of a new connection, made by ``make``; with TLS, after its handshake.

        Raises:
            SidecarError: UPSTREAM_UNREACHABLE, UPSTREAM_TIMEOUT, UPSTREAM_IDENTITY (the TLS handshake failed),
                TARGET_DENIED (an address that the origin does not admit), or our own shortage: OVERLOADED, NOT_READY.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._resolver.addresses(origin.host)
                if origin.admits is not None and not all(map(origin.admits, found)):
                    raise Denied(Reason.TARGET_DENIED, "the name leads to an address that no tunnel may reach")
                addresses = self._in_order(found, origin.port)
                if len(addresses) == 1:
                    return await self._create(origin, make, host=addresses[0], port=origin.port)
                return await self._dial_any(origin, make, addresses)
        except TimeoutError as error:
            self._resolver.doubt(origin.host)
            raise Unavailable(Reason.UPSTREAM_TIMEOUT, "no connection in time") from error
        except OSError as error:
            self._resolver.doubt(origin.host)  # also if another workload answers: addresses get reassigned
            raise _meaning(error) from error

    async def _dial_any(self, origin: Origin, make: Callable[[], P], addresses: Sequence[str]) -> P:
        """Race the addresses. If the winner is unusable, race the others; a winner has half of the remaining time."""
        left = list(addresses)
        ends_at = asyncio.get_running_loop().time() + self._timeout_s
        while True:
            race = Race(left, lambda address: connect(address, origin.port), delay_s=self._delay_s)
            try:
                address, won = await race.win()
            finally:
                self._remember(race.beaten, origin.port)
            left = [one for one in left if one != address]
            now = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout((ends_at - now) / 2 if left else None):
                    return await self._create(origin, make, sock=won)
            except OSError as error:  # TimeoutError is one
                if not left or _meaning(error).reason is Reason.UPSTREAM_IDENTITY:
                    raise
                self._remember([address], origin.port)

    async def _create(self, origin: Origin, make: Callable[[], P], **where: Any) -> P:
        # A name may end in a dot for its lookup. SNI and certificates have it without (RFC 6066 section 3).
        server_name = (origin.server_name or origin.host).removesuffix(".") if origin.tls is not None else None
        _, protocol = await asyncio.get_running_loop().create_connection(
            make, ssl=origin.tls, server_hostname=server_name, **where
        )
        return protocol

    def _in_order(self, addresses: Sequence[str], port: int) -> list[str]:
        """Order the addresses: families alternate, recent losers come last."""
        now = self._clock()
        if self._beaten_at:
            self._beaten_at = {key: at for key, at in self._beaten_at.items() if now - at < _LAST_FOR_S}
        return sorted(interleaved(addresses), key=lambda one: (one, port) in self._beaten_at)[:MAX_ADDRESSES]

    def _remember(self, beaten: Sequence[str], port: int) -> None:
        now = self._clock()
        self._beaten_at.update({(address, port): now for address in beaten})


def _meaning(error: OSError) -> SidecarError:
    """Translate the failure of a connection."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Unavailable(Reason.UPSTREAM_UNREACHABLE, "the upstream closed during the handshake")
    if isinstance(error.__cause__, Unavailable):  # the fault is ours
        return Unavailable(error.__cause__.reason, error.__cause__.detail)
    if isinstance(error, ssl.SSLError):
        return Denied(Reason.UPSTREAM_IDENTITY, f"the TLS handshake failed: {_tls_cause(error)}")
    return Unavailable(Reason.UPSTREAM_UNREACHABLE, type(error).__name__)


def _tls_cause(error: ssl.SSLError) -> str:
    """Return the cause for the record: the text of our own check or of OpenSSL; neither quotes the other end."""
    if type(error) is ssl.SSLError:
        return error.reason or "no cause is known"
    return getattr(error, "verify_message", None) or str(error)
