"""The signed list of one replica, signed on demand: one signature serves all readers for a second or until a change.

A reader with the current list gets a confirmation instead, which is cached likewise.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final, NamedTuple

from delegation_core.revocation_list import Said, claims_of, said_by, unchanged_claims
from delegation_core.revocations_kept import Knowledge, Revocations
from sidecar.steps import in_steps
from sidecar.sts.keys import SigningKey

_SIGNED_FOR_S: Final = 1  # readers use the times in it


class _Signature(NamedTuple):
    kid: str
    tag: str
    knowledge: Knowledge
    jws: bytes

    def serves(self, key: SigningKey, tag: str, now: Knowledge) -> bool:
        """Return True if this signature has this key and content, is at most a second old, and not from the future."""
        young = 0 <= now.issued_at - self.knowledge.issued_at <= _SIGNED_FOR_S
        return young and (self.kid, self.tag, self.knowledge.heard) == (key.kid, tag, now.heard)


class SignedList:
    """Cache of one replica's signed list, and of the signed confirmation for readers with the current list."""

    def __init__(self) -> None:
        self._writing = asyncio.Lock()
        self._of: Revocations | None = None
        self._said: tuple[Said, str] | None = None
        self._list: _Signature | None = None
        self._unchanged: _Signature | None = None

    async def tag(self, of: Revocations) -> str:
        """Return the entity tag, which changes only with the list's content."""
        return (await self._write(of))[1]

    async def signed(self, of: Revocations, knowledge: Knowledge, *, issuer: str, key: SigningKey) -> tuple[str, bytes]:
        """Return the entity tag and the list."""
        said, tag = await self._write(of)
        if self._list is None or not self._list.serves(key, tag, knowledge):
            issued_at, heard = knowledge.issued_at, knowledge.heard
            claims = claims_of(of, said, issuer=issuer, issued_at=issued_at, heard=heard)
            self._list = _Signature(key.kid, tag, knowledge, key.sign_revocations(claims))
        return tag, self._list.jws

    def unchanged(self, tag: str, knowledge: Knowledge, *, issuer: str, key: SigningKey) -> str:
        """Return the signed confirmation for readers with the list of this tag."""
        if self._unchanged is None or not self._unchanged.serves(key, tag, knowledge):
            issued_at, heard = knowledge.issued_at, knowledge.heard
            claims = unchanged_claims(issuer=issuer, tag=tag, issued_at=issued_at, heard=heard)
            self._unchanged = _Signature(key.kid, tag, knowledge, key.sign_unchanged(claims).encode("ascii"))
        return self._unchanged.jws.decode("ascii")

    async def _write(self, of: Revocations) -> tuple[Said, str]:
        async with self._writing:  # concurrent readers share one result
            if self._said is None or self._of is not of:
                said = await in_steps(said_by(of))
                self._of, self._said = of, (said, _tag(of, said))
            return self._said


def _tag(found: Revocations, said: Said) -> str:
    digest = hashlib.sha256(b"%d %d" % (found.seq, found.ttl_s))
    digest.update(said.revoked)
    digest.update(said.lifted)
    return f'"{digest.hexdigest()[:32]}"'
