"""The identity source that reads PEM files and follows their changes.

Theory of operation. All files are read every two seconds; no file notification is used, so it works on every volume. A
change counts when a second reading, a moment later, sees the same: a half-written state (a truncated bundle, a new
certificate beside the old key) is not used, and a swap of a whole directory by Kubernetes' symbolic link is never read
between two files. Errors in the new state are counted and change nothing.

All files together are the full state, so removing a file withdraws it; but a file can also be missing for a moment (a
volume that is mounted again, a script that deletes and copies). So a missing file means "lost" at first, and the
identity stays in use. If it is still missing at the next reading, it was withdrawn: without certificate, key or bundle
we have no identity; without its file a federated trust domain is not trusted. An unreadable file is not a withdrawal:
the last generation is used until its SVID expires. An unreadable file of a federated trust domain affects that domain
only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final

from delegation_core.errors import Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.base_source import BaseSource, Pause
from sidecar.identity.bundle import X509Bundle
from sidecar.identity.file_reader import Absent, Present, Seen, Unreadable, Watched, look_at, look_at_all
from sidecar.identity.file_update import read_file_update
from sidecar.identity.handshake import Clock
from sidecar.identity.pem import may_be_unfinished
from sidecar.identity.update import UpdateError, X509Update

# Names that the usual writers give to certificate, key and bundle.
LAYOUTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "cert-manager": ("tls.crt", "tls.key", "ca.crt"),
    "spiffe-helper": ("svid.pem", "svid_key.pem", "svid_bundle.pem"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """The identity files. ``bundle`` is our own trust domain's; ``federated`` has a file for each other one.

    ``jwt_svids``: a file for each audience that needs a JWT-SVID. ``jwt_bundles``: spiffe-helper's file.
    """

    py_spiffe: ClassVar[bool] = False  # py-spiffe reads no files

    certificate: Path
    key: Path
    bundle: Path
    federated: Mapping[TrustDomain, Path] = field(default_factory=dict)
    jwt_svids: Mapping[str, Path] = field(default_factory=dict)
    jwt_bundles: Path | None = None
    spiffe_id: SpiffeId | None = None
    look_every_s: float = 2.0
    settle_s: float = 0.2

    def __post_init__(self) -> None:
        held = [self.certificate, self.key, self.bundle, *self.federated.values()]
        if len(set(held)) != len(held):
            raise ValueError("files: one is named twice; use a separate file for certificate, key and each bundle")
        if not 0 < self.settle_s <= self.look_every_s:
            raise ValueError("files: the second look is not after the first, or not before the next; change the waits")

    @property
    def ours(self) -> tuple[Path, Path, Path]:
        """The files of our own identity. All three are required."""
        return self.certificate, self.key, self.bundle

    @property
    def others(self) -> tuple[Path, ...]:
        """The other files, each of one trust domain or of the JWT bundles."""
        return *self.federated.values(), *((self.jwt_bundles,) if self.jwt_bundles is not None else ())

    @property
    def watched(self) -> tuple[Watched, ...]:
        """All files that are read regularly. JWT-SVIDs are read on request."""
        return tuple(Watched(path, private=path == self.key) for path in (*self.ours, *self.others))


class FileSource(BaseSource):
    """An ``IdentitySource`` on PEM files."""

    def __init__(self, settings: FileSettings, *, clock: Clock = time.time, pause: Pause = asyncio.sleep) -> None:
        super().__init__(clock, self._fetch_jwt_svid)
        self._settings = settings
        self._pause = pause
        self._seen: Mapping[Path, Seen] = {}
        self._judged: Mapping[Path, Seen] | None = None

    async def run(self) -> None:
        """Follow the files until cancelled. No content of a file ends this."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._jwt_svids.run())
            while True:
                await self._pause(await self._look())

    async def _look(self) -> float:
        """Read once; return the seconds until the next reading."""
        seen = await asyncio.to_thread(look_at_all, self._settings.watched, self._seen)
        settled = seen == self._seen
        self._seen = seen
        if settled:
            await self._judge(seen)
        await self._tick()
        return self._settings.look_every_s if settled else self._settings.settle_s

    async def _judge(self, seen: Mapping[Path, Seen]) -> None:
        """Act on a state that two readings agree on."""
        again = seen == self._judged
        self._judged = seen
        if again and self._connected:
            return
        self.unusable = None
        trouble = [one for one in seen.values() if isinstance(one, Absent | Unreadable)]
        lasting = [seen[path] for path in self._settings.ours if isinstance(seen[path], Unreadable)]
        if lasting or (trouble and not again):
            if not again:
                self._connected = False
                self._note_loss("; ".join(one.why for one in trouble))
            return
        self._connected = True
        await self._act(seen)

    async def _act(self, seen: Mapping[Path, Seen]) -> None:
        gone = [one.why for path in self._settings.ours if isinstance(one := seen[path], Absent)]
        if gone:
            self._withdraw("; ".join(gone))
        else:
            taken = await self._take(lambda held: self._read(seen, {} if held is None else held.bundles))
            if not taken and not self._may_become_usable(seen):
                self.unusable = self._last_error
        if self._settings.jwt_bundles is not None:
            self._take_jwt_bundles(_content(seen[self._settings.jwt_bundles]))

    def _may_become_usable(self, seen: Mapping[Path, Seen]) -> bool:
        """Return True if a file may be half-written, or the SVID is not valid yet."""
        early = self._waiting is not None and self._waiting.svid.not_before > self._clock()
        return early or any(may_be_unfinished(_content(seen[path]) or b"") for path in self._settings.ours)

    def _read(self, seen: Mapping[Path, Seen], known: Mapping[TrustDomain, X509Bundle]) -> X509Update:
        certificate, key, bundle = (_content(seen[path]) or b"" for path in self._settings.ours)
        return read_file_update(
            certificate=certificate,
            key=key,
            bundle=bundle,
            federated={domain: _content(seen[path]) for domain, path in self._settings.federated.items()},
            spiffe_id=self._settings.spiffe_id,
            known=known,
        )

    def _take_jwt_bundles(self, document: bytes | None) -> None:
        if document is None:
            self._jwt_bundles = MappingProxyType({})
            return
        from sidecar.identity.jwt_bundle_file import read_jwt_bundle_file

        try:
            self._jwt_bundles, broken = read_jwt_bundle_file(document, known=self._jwt_bundles)
        except UpdateError as error:
            self._discard(error)
            return
        self.counts.broken_bundles += broken

    async def _fetch_jwt_svid(self, audience: str, spiffe_id: SpiffeId) -> str:  # noqa: ARG002 - checked by who asked
        path = self._settings.jwt_svids.get(audience)
        if path is None:
            raise Unavailable(Reason.NOT_READY, "identity.files.jwt_svids names no file for this audience")
        seen = await asyncio.to_thread(look_at, Watched(path, private=True))
        if not isinstance(seen, Present):
            raise Unavailable(Reason.NOT_READY, seen.why)
        try:
            return seen.content.decode("ascii").strip()
        except UnicodeDecodeError:
            raise Unavailable(Reason.NOT_READY, f"{path} holds no JWT-SVID") from None


def _content(seen: Seen) -> bytes | None:
    return seen.content if isinstance(seen, Present) else None
