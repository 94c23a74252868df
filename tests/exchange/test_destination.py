from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.exchange.destination import Destination
from sidecar.identity.endpoint import Endpoint, EndpointError, Trouble
from sidecar_dev.pki import TrustDomainAuthority
from tests.exchange.world import STS, authority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import PLANNER, TRUST_DOMAIN, WRITER
from tests.proxy.test_origins import Transport


class Retired:
    """Counts how often the connections were retired."""

    times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def own() -> OwnIdentity:
    return OwnIdentity(authority(), WRITER)


def destination(
    own: OwnIdentity, url: str = "https://sts.example/token", *, retired: Retired | None = None, **who: str | SpiffeId
) -> Destination:
    who = who or {"peer": STS}
    endpoint = Endpoint(url=url, **who)  # type: ignore[arg-type]
    return Destination(endpoint, own, clock=time.time, retire=retired or Retired())


@pytest.mark.parametrize(
    ("url", "host", "port", "authority_sent", "target"),
    [
        ("https://sts.example/a/token", "sts.example", 443, b"sts.example", b"/a/token"),
        ("https://STS.example:8443/token?x=%2F", "sts.example", 8443, b"sts.example:8443", b"/token?x=%2F"),
        ("https://[::1]:7444/token", "::1", 7444, b"[::1]:7444", b"/token"),
        ("https://[::1]", "::1", 443, b"[::1]", b"/"),
        ("https://10.0.0.1/?", "10.0.0.1", 443, b"10.0.0.1", b"/"),
    ],
)
def test_the_url_says_where_to_call_and_what_to_ask_for(
    url: str, host: str, port: int, authority_sent: bytes, target: bytes, own: OwnIdentity
) -> None:
    place = destination(own, url)
    origin = place.origin()
    assert (origin.host, origin.port, origin.tls is not None) == (host, port, True)
    assert (place.authority, place.target) == (authority_sent, target)


def test_plain_http_is_called_on_port_80_without_tls(own: OwnIdentity) -> None:
    endpoint = Endpoint(url="http://127.0.0.1/token")
    origin = Destination(endpoint, own, clock=time.time, retire=Retired()).origin()
    assert (origin.port, origin.tls, origin.still_good, origin.life_s) == (80, None, None, None)


def test_while_nothing_changes_connections_are_shared(own: OwnIdentity) -> None:
    retired = Retired()
    place = destination(own, retired=retired)
    first, times = place.origin(), retired.times
    assert place.origin() is first
    assert retired.times == times


def test_a_renewed_svid_or_new_bundles_retire_connections_at_once(own: OwnIdentity) -> None:
    retired = Retired()
    place = destination(own, retired=retired)
    changes: list[Callable[[], None]] = [partial(own.become, WRITER), own.renew_bundles, partial(own.become, PLANNER)]
    for change in changes:
        before, times = place.origin(), retired.times
        change()
        assert retired.times > times
        assert place.origin().key != before.key


def test_without_an_identity_nothing_is_called_until_it_is_back(own: OwnIdentity) -> None:
    retired = Retired()
    place = destination(own, retired=retired)
    place.origin()
    times = retired.times
    own.become(None)
    assert retired.times > times
    with pytest.raises(EndpointError) as caught:
        place.origin()
    assert caught.value.trouble is Trouble.NOT_READY
    own.become(WRITER)
    place.origin()


def test_connections_to_another_workload_or_url_are_never_shared(own: OwnIdentity) -> None:
    key = destination(own).origin().key
    assert destination(own, peer=PLANNER).origin().key != key
    assert destination(own, "https://sts.example/other").origin().key != key
    assert destination(own).origin().key == key


def test_connections_are_judged_and_aged_by_both_identities(own: OwnIdentity) -> None:
    origin = destination(own).origin()
    now = int(time.time())
    assert origin.still_good is not None
    assert origin.life_s is not None
    assert origin.still_good(Transport(own, authority(), now + 60))
    assert not origin.still_good(Transport(own, authority(), now))
    assert 0 < origin.life_s(Transport(own, authority(), now + 60)) <= 60


def test_a_changed_ca_file_retires_connections_and_an_unusable_one_calls_nobody(
    own: OwnIdentity, tmp_path: Path
) -> None:
    file, retired = tmp_path / "ca.pem", Retired()
    file.write_bytes(authority().bundle_pem())
    place = destination(own, retired=retired, ca_file=str(file))
    before, times = place.origin(), retired.times
    own.become(None)  # it is not shown to a host
    assert place.origin() is before
    assert retired.times == times
    file.write_bytes(TrustDomainAuthority(TRUST_DOMAIN).bundle_pem())
    os.utime(file, ns=(1, 1))  # whatever the file system's clock can tell apart
    assert place.origin().key != before.key
    assert retired.times == times + 1
    file.write_text("no certificate")
    with pytest.raises(EndpointError) as caught:
        place.origin()
    assert caught.value.trouble is Trouble.IDENTITY


def test_a_connection_to_a_host_ends_with_its_certificate(own: OwnIdentity, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority().bundle_pem())
    origin = destination(own, ca_file=str(file)).origin()
    assert origin.life_s is not None
    for ends_at, left in ((time.time() + 60, 60), (time.time() - 60, 0)):
        not_after = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(ends_at))
        transport = asyncio.BaseTransport({"peercert": {"notAfter": not_after}})
        assert origin.life_s(transport) == pytest.approx(left, abs=2)
