from __future__ import annotations

import pytest

from sidecar.wire.dialer import connect
from tests.wire.loopback import Upstream

pytestmark = pytest.mark.integration


async def test_a_connection_is_a_socket_that_does_not_block() -> None:
    upstream = Upstream()
    await upstream.listen()
    made = await connect("127.0.0.1", upstream.port)
    assert made.getpeername() == ("127.0.0.1", upstream.port)
    assert not made.getblocking()
    made.close()
    await upstream.close()
