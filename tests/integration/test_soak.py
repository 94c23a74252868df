"""A short soak, at a pace that any machine keeps; `make soak` is the long one, also with several workers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.soak.soak import soak

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


async def test_under_load_nothing_is_lost_whatever_changes() -> None:
    wanted = {"svid": 5, "authority": 1, "keys": 1, "reload": 2}
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        report = await soak(Path(folder), seconds=14.0, rate=20, wanted=wanted, streams=2, workers=1)
    assert report.failed == []
    assert report.cut == []
    assert report.changes == wanted
    assert report.exit_code == 0
    assert report.requests > 100
    assert report.calls_out >= report.requests
    assert min(report.events, report.messages) > 50
