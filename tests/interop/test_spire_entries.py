"""Registration entries of a real SPIRE: what it shows is read, and the fixes that are printed are run on it."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from delegation_audit.selectors.examination import Result, examine
from tests.interop.spire import Spire, missing

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

PARENT = ("-parentID", "spiffe://a.test/spire/agent/x509pop/machine-1")
HASH = f"unix:sha256:{'a' * 64}"
WEAK = {
    "agent-admin": ("-selector", "unix:uid:2001", "-selector", HASH, "-admin", "-hint", "it's"),
    "long-x509-ttl": ("-selector", "unix:uid:2002", "-selector", HASH, "-x509SVIDTTL", "7200", "-jwtSVIDTTL", "60"),
    "dns-name": ("-selector", "unix:uid:2003", "-selector", HASH, "-dns", "a.test", "-entryExpiry", "4000000000"),
    "store-svid": ("-selector", "unix:uid:2004", "-selector", HASH, "-storeSVID"),
    "image-tag": ("-selector", "docker:image_id:a:1"),
    "expired-entry": ("-selector", "unix:uid:2006", "-entryExpiry", "3000000000"),
}
AT = 3_500_000_000  # the one entry has expired then, the other has not


@pytest.fixture
async def spire() -> AsyncIterator[Spire]:
    if lacking := missing():
        assert "CI" not in os.environ, f"not on PATH: {', '.join(lacking)}"
        pytest.skip(f"not on PATH: {', '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="spire-") as folder:
        async with Spire(Path(folder), "a.test") as running:
            yield running


async def judged(spire: Spire, folder: Path) -> Result:
    shown = folder / "entries.json"
    shown.write_text(await spire.server("entry", "show", "-output", "json"))
    return examine([str(shown)], now=AT)


async def test_every_fix_that_is_printed_is_accepted_and_fixes(spire: Spire, tmp_path: Path) -> None:
    for number, words in enumerate(WEAK.values()):
        await spire.server("entry", "create", *PARENT, "-spiffeID", f"spiffe://a.test/agent/{number}", *words)
    found = await judged(spire, tmp_path)
    assert {one.rule.id for one in found.weaknesses} == set(WEAK)
    assert len(found.entries) == len(WEAK)
    kept = {entry.spiffe_id: entry for entry in found.entries}
    for one in found.weaknesses:
        command = shlex.split(one.fix.split("\n")[1].replace("DIGEST", "0" * 64))
        assert command[0] == "spire-server"
        await spire.server(*command[1:])
    fixed = await judged(spire, tmp_path)
    assert fixed.weaknesses == []
    assert len(fixed.entries) == len(found.entries) - 1
    for entry in fixed.entries:
        before = kept[entry.spiffe_id]
        assert (entry.hint, entry.jwt_svid_ttl_s, entry.expires_at) == (
            before.hint,
            before.jwt_svid_ttl_s,
            before.expires_at,
        )
