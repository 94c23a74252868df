"""Errors of upstreams: which of them a sender may answer with another connection."""

from __future__ import annotations

import pytest

from delegation_core.errors import Reason
from sidecar.wire.upstream_errors import StaleConnection, closed_unanswered


@pytest.mark.parametrize("kept", [True, False])
def test_only_the_loss_of_a_kept_connection_is_stale(kept: bool) -> None:
    error = closed_unanswered(kept=kept)
    assert isinstance(error, StaleConnection) is kept
    assert error.reason is Reason.UPSTREAM_UNREACHABLE
