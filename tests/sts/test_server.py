from __future__ import annotations

from typing import Any

import pytest

from sidecar.sts.server import StsSettings


@pytest.mark.parametrize("name", ["body_timeout_s", "drain_s"])
def test_a_time_is_above_zero(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        StsSettings(**dict[str, Any]({name: 0}))
