"""Everything that changes under a running sidecar while it is under load."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import yaml

from sidecar_dev.registry import Registry
from tests.fakes.tokens import private_key, public_jwk
from tests.integration.hops import Hops
from tests.integration.process import Running
from tests.integration.world import WRITER, mint

NEW_KEY_S = 4.0  # twice the refresh interval of the soak's settings: a key is published before it signs

PUBLISHED_S = 1.0  # before an authority signs: otherwise some peers meet its certificates before they know it

TOKEN_S = 20.0


class Changes:
    """Makes changes and records how long a new certificate took to be served. ``token`` is signed by the newest key."""

    def __init__(self, hops: Hops, sidecar: Running) -> None:
        self.made: dict[str, int] = {"svid": 0, "authority": 0, "keys": 0, "reload": 0}
        self.served_after_s: list[float] = []
        self.late: list[str] = []
        self._hops = hops
        self._sidecar = sidecar
        self._key = 0
        # bytes of the records already read: an hour makes hundreds of megabytes, and all share one loop
        self._looked_at = 0
        self._reloaded = 0
        self._token: tuple[int, float, str] | None = None

    def token(self) -> str:
        """Return a token of the planner's, reused for a while."""
        now = time.monotonic()
        if self._token is None or self._token[:1] != (self._key,) or now > self._token[1]:
            self._token = self._key, now + TOKEN_S, mint(header={"kid": _kid(self._key)}, key=self._key)
        return self._token[2]

    async def run(self, wanted: dict[str, int], seconds: float) -> None:
        """Make this many changes of each kind, spread evenly; changes of certificates run one after the other."""
        certificates = {"svid": self.renew, "authority": self.change_authority}
        await asyncio.gather(
            asyncio.sleep(seconds),
            self._make(certificates, wanted, seconds),
            self._make({"keys": self.change_keys}, wanted, seconds),
            self._make({"reload": self.reload}, wanted, seconds),
        )

    async def _make(
        self, kinds: Mapping[str, Callable[[], Awaitable[None]]], wanted: Mapping[str, int], seconds: float
    ) -> None:
        due = sorted(
            (seconds * (number + 0.5) / wanted[kind], kind) for kind in kinds for number in range(wanted[kind])
        )
        began_at = time.monotonic()
        for at, kind in due:
            await asyncio.sleep(max(0.0, began_at + at - time.monotonic()))
            await kinds[kind]()
            self.made[kind] += 1

    async def renew(self) -> None:
        """Renew the sidecar's SVID, which it must serve at once."""
        registry = self._of_writer()
        before = await self._certificate()
        (entry,) = registry.entries
        registry.replace_entries([replace(entry, ttl_s=entry.ttl_s - 1)])
        await self._wait_for_another(before, "svid")

    async def change_authority(self) -> None:
        """Publish a new authority, then sign with it: everybody gets a new SVID; the previous one stays trusted."""
        before = await self._certificate()
        for registry in self._hops.world.registries:
            registry.prepare()
        await asyncio.sleep(PUBLISHED_S)
        self._hops.world.registries[0].rotate()
        for registry in self._hops.world.registries:
            registry.replace_entries([replace(entry, ttl_s=entry.ttl_s - 1) for entry in registry.entries])
        await self._wait_for_another(before, "authority")

    async def change_keys(self) -> None:
        """Publish another key, then sign with it; the first key stays for the streams, others go."""
        number = self._key + 1
        published = self._hops.world.keys["keys"]
        published.append(public_jwk(private_key("ES256", number), kid=_kid(number), use="sig", alg="ES256"))
        await asyncio.sleep(NEW_KEY_S)
        old, self._key = self._key, number
        await asyncio.sleep(NEW_KEY_S)  # no request depends on the previous key any more
        if old:
            published[:] = [key for key in published if key["kid"] != _kid(old)]

    async def reload(self) -> None:
        """Replace the settings file, read on SIGHUP."""
        document = yaml.safe_load(self._sidecar.path.read_text())
        count = self._reloads()
        document["deny"] = [{"subject": f"mallory{count}", "note": "soak"}]
        self._sidecar.path.write_text(yaml.safe_dump(document))
        self._sidecar.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30.0
        while self._reloads() == count:
            if time.monotonic() > deadline:
                self.late.append("reload")
                return
            await asyncio.sleep(0.05)

    def _reloads(self) -> int:
        with self._sidecar.file.open("rb") as records:
            records.seek(self._looked_at)
            for line in records:
                if line.endswith(b"\n"):
                    self._looked_at += len(line)
                    self._reloaded += b'"event":"config.reloaded"' in line
        return self._reloaded

    def _of_writer(self) -> Registry:
        return next(one for one in self._hops.world.registries if one.entries[0].spiffe_id == WRITER)

    async def _wait_for_another(self, before: bytes, what: str) -> None:
        began_at = time.monotonic()
        while await self._certificate() == before:
            if time.monotonic() - began_at > 10.0:
                self.late.append(what)
                return
            await asyncio.sleep(0.01)
        self.served_after_s.append(time.monotonic() - began_at)

    async def _certificate(self) -> bytes:
        """Return the certificate that the sidecar presents now."""
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self._sidecar.port, ssl=self._hops.planner, server_hostname="sidecar"
        )
        found: Any = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        assert isinstance(found, bytes)
        return found


def _kid(number: int) -> str:
    return f"soak{number}" if number else "k0"  # the world's own first key
