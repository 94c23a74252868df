"""One new upstream connection: name → addresses → TCP → TLS, within one deadline for all of it.

An address that is dead does not fail the call: the next one is tried. An address that answers as somebody else does:
were it passed by, whoever can put an address into DNS could stand there unseen, and the operator would only ever learn
of it by chance. Only what proves the pinned identity carries a request in any case.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sidecar.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.racing import ATTEMPT_DELAY_S, Race, connect, interleaved
from sidecar.wire.resolver import Resolver

MAX_ADDRESSES: Final = 8  # of one name, tried for one connection
_LAST_FOR_S: Final = 30.0  # so long an address that was beaten is tried after the others

P = TypeVar("P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go. Connections are shared by equal ``key``: host, port, peer identity, own identity …

    ``still_good`` is asked before a connection is used, a new one too: the peer's identity may have ended meanwhile.
    ``life_s`` is asked once of a new one: for how many seconds it may be used, because of who is at its two ends.
    """

    host: str
    port: int
    key: Hashable
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    server_name: str | None = None
    still_good: Callable[[asyncio.BaseTransport], bool] | None = field(default=None, repr=False)
    life_s: Callable[[asyncio.BaseTransport], float] | None = field(default=None, repr=False)


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
        """The protocol of a new connection, made by ``make``; with TLS, after its handshake.

        Raises:
            SidecarError: UPSTREAM_UNREACHABLE, UPSTREAM_TIMEOUT, UPSTREAM_IDENTITY (the TLS handshake failed), or
                what we lacked ourselves: OVERLOADED, NOT_READY.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = self._in_order(await self._resolver.addresses(origin.host), origin.port)
                if len(addresses) == 1:
                    return await self._create(origin, make, host=addresses[0], port=origin.port)
                return await self._dial_any(origin, make, addresses)
        except TimeoutError as error:
            self._resolver.doubt(origin.host)
            raise Unavailable(Reason.UPSTREAM_TIMEOUT, "no connection in time") from error
        except OSError as error:
            self._resolver.doubt(origin.host)  # also where another workload answers: addresses are given to others
            raise _meaning(error) from error

    async def _dial_any(self, origin: Origin, make: Callable[[], P], addresses: Sequence[str]) -> P:
        """Race for a connection, and again among the rest where it cannot be used. Half the time left goes to each."""
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
        server_name = (origin.server_name or origin.host) if origin.tls is not None else None
        _, protocol = await asyncio.get_running_loop().create_connection(
            make, ssl=origin.tls, server_hostname=server_name, **where
        )
        return protocol

    def _in_order(self, addresses: Sequence[str], port: int) -> list[str]:
        """Families in turn, what was beaten lately last, and no more than are worth a try."""
        now = self._clock()
        if self._beaten_at:
            self._beaten_at = {key: at for key, at in self._beaten_at.items() if now - at < _LAST_FOR_S}
        return sorted(interleaved(addresses), key=lambda one: (one, port) in self._beaten_at)[:MAX_ADDRESSES]

    def _remember(self, beaten: Sequence[str], port: int) -> None:
        now = self._clock()
        self._beaten_at.update({(address, port): now for address in beaten})


def _meaning(error: OSError) -> SidecarError:
    """What a failed connection means."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Unavailable(Reason.UPSTREAM_UNREACHABLE, "the upstream closed during the handshake")
    if isinstance(error.__cause__, Unavailable):  # it was we who could not
        return Unavailable(error.__cause__.reason, error.__cause__.detail)
    if isinstance(error, ssl.SSLError):
        return Denied(Reason.UPSTREAM_IDENTITY, f"the TLS handshake failed: {_tls_cause(error)}")
    return Unavailable(Reason.UPSTREAM_UNREACHABLE, type(error).__name__)


def _tls_cause(error: ssl.SSLError) -> str:
    """The cause for the record: our own check's words, or OpenSSL's, which quote nothing of the other end."""
    if type(error) is ssl.SSLError:
        return error.reason or "no cause is known"
    return getattr(error, "verify_message", None) or str(error)
