"""An issuer's list of revocations on a real socket, signed with the issuer's key; a test changes what it says."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

from delegation_core.revocation import NAMED_BY_ISSUER, Kind
from delegation_core.revocation_list import TYP, UNCHANGED_TYP, claims_of, said_by, sign_list, unchanged_claims
from delegation_core.revocations_kept import Revocation, Revocations
from delegation_core.steps import at_once
from tests.fakes.tokens import private_key, sign


def claims(said: Revocations, issuer: str) -> dict[str, object]:
    """Return the claims of a list that says this."""
    return claims_of(said, at_once(said_by(said)), issuer=issuer, issued_at=said.issued_at)


@dataclass
class ListServer:
    """Serves the list of ``issuer``, signed by its key number ``key`` under ``kid``.

    ``down``: connections end without an answer. ``raw`` is sent instead of the list. ``heard_s``: the seconds since the
    replica heard each of its peers.
    """

    issuer: str
    key: int = 0
    kid: str = "k0"
    ttl_s: int = 300
    down: bool = False
    raw: bytes | None = None
    heard_s: tuple[int, ...] = ()
    statuses: list[int] = field(default_factory=list)
    said: Revocations = field(default_factory=lambda: Revocations(seq=1))

    def revoke(self, kind: Kind, value: str, issuer: str | None = None, *, for_s: int = 3600) -> None:
        """Add a revocation, under the next number."""
        issuer = issuer if kind in NAMED_BY_ISSUER else None
        one = Revocation(
            id=f"{kind}-{value}", kind=kind, value=value, issuer=issuer, expires_at=int(time.time()) + for_s
        )
        self.said = replace(self.said, seq=self.said.seq + 1, in_force={**self.said.in_force, one.id: one})

    def lift(self) -> None:
        """Lift everything."""
        lifted = {name: one.expires_at for name, one in self.said.in_force.items()}
        self.said = replace(self.said, seq=self.said.seq + 1, in_force={}, lifted=lifted)

    def signed(self) -> bytes:
        now, said = int(time.time()), replace(self.said, ttl_s=self.ttl_s)
        heard = [now - one for one in self.heard_s]
        return self._signed(claims_of(said, at_once(said_by(said)), issuer=self.issuer, issued_at=now, heard=heard))

    def unchanged(self, tag: bytes) -> bytes:
        now = int(time.time())
        heard = [now - one for one in self.heard_s]
        said = unchanged_claims(issuer=self.issuer, tag=tag.decode(), issued_at=now, heard=heard)
        return self._signed(said, UNCHANGED_TYP)

    def _signed(self, said: dict[str, object], typ: str = TYP) -> bytes:
        private = private_key("ES256", self.key)
        return sign_list(said, alg="ES256", kid=self.kid, sign=lambda data: sign("ES256", private, data), typ=typ)

    def gone(self) -> bool:
        return self.down

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not self.gone():
                head = await reader.readuntil(b"\r\n\r\n")
                if self.gone():
                    break
                tag = b'"%d"' % self.said.seq
                if b"if-none-match: " + tag in head.lower():
                    self.statuses.append(304)
                    fields = b"etag: %b\r\nrevocations-unchanged: %b\r\n" % (tag, self.unchanged(tag))
                    writer.write(b"HTTP/1.1 304 Not Modified\r\n%b\r\n" % fields)
                else:
                    self.statuses.append(200)
                    body = self.signed() if self.raw is None else self.raw
                    fields = b"etag: %b\r\ncontent-length: %d\r\n" % (tag, len(body))
                    writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (fields, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
