from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from sidecar.wire.limits import ClientLimits, ServerLimits


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, field.name) for kind in (ServerLimits, ClientLimits) for field in fields(kind)]
)
@pytest.mark.parametrize("value", [0, -1])
def test_there_is_no_way_to_say_no_limit(kind: Any, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        kind(**{name: value})
