from __future__ import annotations

import pytest

from sidecar.wire.dialer import Origin


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [("crm.internal", 7443, b"crm.internal:7443"), ("::1", 80, b"[::1]:80"), ("10.0.0.1", 443, b"10.0.0.1:443")],
)
def test_the_authority_of_an_origin_names_host_and_port(host: str, port: int, expected: bytes) -> None:
    assert Origin(host, port, key="k").authority == expected
