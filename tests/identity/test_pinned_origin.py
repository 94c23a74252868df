from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Hashable
from pathlib import Path

import pytest

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import thumbprint_of
from sidecar.identity.file_trust import FileTrust
from sidecar.identity.pinned_origin import Address, Pin, PinnedOrigins, leaf_of, life_s, still_trusted
from sidecar.identity.tls import client_context
from sidecar.wire.dialer import Origin
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import PLANNER, TRUST_DOMAIN, WRITER
from tests.proxy.test_origins import Transport

STS = SpiffeId("spiffe://acme.example/sts")
THERE = Address("https", "sts.example", 443)
AUTHORITY = TrustDomainAuthority(TRUST_DOMAIN)


class Pool:
    """A pool that records the keys of its connections."""

    def __init__(self) -> None:
        self.keys: list[Hashable] = []

    def retire(self, of: Callable[[Hashable], bool]) -> None:
        self.keys = [key for key in self.keys if not of(key)]


class Ends:
    """The origins of a pool, and the identity they follow."""

    def __init__(self) -> None:
        self.own = OwnIdentity(AUTHORITY, WRITER)
        self.pool = Pool()
        self.origins = PinnedOrigins(self.own, time.time, self.pool.retire)

    def connect(self, address: Address = THERE, pin: Pin = STS) -> Origin:
        origin = self.origins.of(address, pin)
        self.pool.keys.append(origin.key)
        return origin


@pytest.fixture
def ends() -> Ends:
    return Ends()


def test_while_nothing_changes_connections_are_shared(ends: Ends) -> None:
    first = ends.connect()
    assert ends.connect() is first
    assert (first.host, first.port, first.tls is not None) == ("sts.example", 443, True)
    assert len(ends.pool.keys) == 2


@pytest.mark.parametrize(
    ("address", "pin"),
    [
        pytest.param(THERE, PLANNER, id="another workload"),
        pytest.param(THERE._replace(host="other.example"), STS, id="another host"),
        pytest.param(THERE._replace(port=444), STS, id="another port"),
    ],
)
def test_connections_to_another_place_or_workload_are_never_shared(address: Address, pin: Pin, ends: Ends) -> None:
    assert ends.connect(address, pin).key != ends.connect().key


@pytest.mark.parametrize("becomes", [WRITER, PLANNER, None], ids=["renewed", "another workload", "withdrawn"])
def test_another_svid_retires_connections_at_once_and_new_bundles_alone_do_not(
    becomes: SpiffeId | None, ends: Ends
) -> None:
    before = ends.connect()
    ends.own.renew_bundles()
    assert ends.connect() is before
    assert ends.pool.keys == [before.key, before.key]
    ends.own.become(becomes)
    assert ends.pool.keys == []
    if becomes is not None:
        assert ends.connect().key != before.key


def test_without_our_identity_there_is_no_connection_that_shows_it(ends: Ends) -> None:
    ends.own.become(None)
    assert ends.connect(Address("http", "127.0.0.1", 80), None).tls is None
    with pytest.raises(Unavailable) as refused:
        ends.connect()
    assert refused.value.reason is Reason.NOT_READY


def test_where_every_generation_counts_new_bundles_retire_connections_too(ends: Ends) -> None:
    strict = PinnedOrigins(ends.own, time.time, ends.pool.retire, per_generation=True)
    ends.pool.keys = [strict.of(THERE, STS).key]
    ends.own.renew_bundles()
    assert ends.pool.keys == []


def test_plain_http_and_hosts_are_shown_no_identity_so_its_change_ends_no_connection(
    ends: Ends, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.bundle_pem())
    plain = ends.connect(Address("http", "127.0.0.1", 80), None)
    host = ends.connect(THERE, FileTrust(str(tmp_path / "ca.pem")))
    ends.own.become(None)
    assert ends.pool.keys == [plain.key, host.key]
    assert (plain.tls, plain.still_good, plain.life_s) == (None, None, None)


def test_without_an_identity_nobody_is_called_until_it_is_back(ends: Ends) -> None:
    ends.own.become(None)
    with pytest.raises(Unavailable) as refused:
        ends.connect()
    assert refused.value.reason is Reason.NOT_READY
    ends.own.become(WRITER)
    ends.connect()


def test_connections_are_judged_and_aged_by_both_identities(ends: Ends) -> None:
    origin, now = ends.connect(), int(time.time())
    assert origin.still_good is not None
    assert origin.life_s is not None
    assert origin.still_good(Transport(ends.own, AUTHORITY, now + 60))
    assert not origin.still_good(Transport(ends.own, AUTHORITY, now))
    assert 0 < origin.life_s(Transport(ends.own, AUTHORITY, now + 60)) <= 60


def test_a_changed_ca_file_retires_connections_and_an_unusable_one_calls_nobody(ends: Ends, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(AUTHORITY.bundle_pem())
    trust = FileTrust(str(file))
    before = ends.connect(THERE, trust)
    assert ends.connect(THERE, trust) is before
    file.write_bytes(TrustDomainAuthority(TRUST_DOMAIN).bundle_pem())
    os.utime(file, ns=(1, 1))  # whatever the resolution of the file system's clock
    after = ends.connect(THERE, trust)
    assert ends.pool.keys == [after.key]
    assert after.key != before.key
    file.write_text("no certificate")
    with pytest.raises(Denied) as refused:
        ends.connect(THERE, trust)
    assert refused.value.reason is Reason.UPSTREAM_IDENTITY


def test_a_host_that_is_shown_our_svid_is_shown_the_newest_one_and_nothing_without_it(
    ends: Ends, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.bundle_pem())
    trust = FileTrust(str(tmp_path / "ca.pem"), ends.own)
    before = ends.connect(THERE, trust)
    assert ends.connect(THERE, trust) is before
    ends.own.become(PLANNER)
    after = ends.connect(THERE, trust)
    assert ends.pool.keys == [after.key]
    ends.own.become(None)
    with pytest.raises(Unavailable) as refused:
        ends.connect(THERE, trust)
    assert refused.value.reason is Reason.NOT_READY
    assert ends.connect(THERE, FileTrust(str(tmp_path / "ca.pem"))).tls is not None


def test_a_connection_to_a_host_ends_with_its_certificate(ends: Ends, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(AUTHORITY.bundle_pem())
    origin = ends.connect(THERE, FileTrust(str(file)))
    assert origin.life_s is not None
    for ends_at, left in ((time.time() + 60, 60), (time.time() - 60, 0)):
        not_after = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(ends_at))
        transport = asyncio.BaseTransport({"peercert": {"notAfter": not_after}})
        assert origin.life_s(transport) == pytest.approx(left, abs=2)


def test_closed_it_follows_no_identity(ends: Ends) -> None:
    before = ends.connect()
    ends.origins.close()
    ends.own.become(None)
    assert ends.pool.keys == [before.key]
    assert ends.own.subscribers == 0


def withdraw(own: OwnIdentity) -> None:
    own.become(None)


def trust_others(own: OwnIdentity) -> None:
    own.authority = TrustDomainAuthority(TRUST_DOMAIN)
    own.become(WRITER)


def renew(own: OwnIdentity) -> None:
    own.become(WRITER)


def nothing(_own: OwnIdentity) -> None:
    pass


@pytest.mark.parametrize(
    ("happens", "seconds_left", "trusted"),
    [
        pytest.param(nothing, 60, True, id="nothing has changed"),
        pytest.param(renew, 60, True, id="a renewed identity of our own"),
        pytest.param(withdraw, 60, False, id="our identity is gone"),
        pytest.param(trust_others, 60, False, id="its authority is gone"),
        pytest.param(nothing, 0, False, id="its certificate has ended"),
    ],
)
def test_a_kept_connection_is_judged_by_the_trust_of_now(
    happens: Callable[[OwnIdentity], None], seconds_left: int, trusted: bool
) -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    own, now = OwnIdentity(authority, WRITER), time.time()
    transport = Transport(own, authority, int(now) + seconds_left)
    happens(own)
    assert still_trusted(transport, now) is trusted


def test_a_connection_lives_half_as_long_as_our_own_svid() -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    own, now = OwnIdentity(authority, WRITER), time.time()
    assert own.current is not None
    svid = own.current.svid
    transport = Transport(own, authority, svid.not_after)
    assert life_s(own, transport, now) == pytest.approx((svid.not_after - svid.not_before) / 2)
    own.become(None)
    assert life_s(own, transport, now) == 0.0


def test_each_svid_has_a_leaf_of_its_own() -> None:
    own = OwnIdentity(TrustDomainAuthority(TRUST_DOMAIN), WRITER)
    first = leaf_of(own.current)
    own.renew_bundles()
    assert leaf_of(own.current) == first
    own.become(WRITER)
    assert leaf_of(own.current) != first
    assert leaf_of(None) is None


def thumbprint(ends: Ends) -> str:
    assert ends.own.current is not None
    return thumbprint_of(ends.own.current.svid.leaf_sha256)


def test_calls_with_a_bound_token_have_connections_of_their_own_and_end_with_the_svid(ends: Ends) -> None:
    unbound = ends.connect()
    bound = ends.origins.of(THERE, STS, bound_to=thumbprint(ends))
    assert bound.key != unbound.key
    assert ends.origins.of(THERE, STS, bound_to=thumbprint(ends)) is bound
    ends.pool.keys.append(bound.key)
    before = thumbprint(ends)
    ends.own.become(WRITER)
    assert ends.pool.keys == []
    assert ends.origins.of(THERE, STS, bound_to=thumbprint(ends)).key != bound.key
    with pytest.raises(Denied) as refused:
        ends.origins.of(THERE, STS, bound_to=before)
    assert refused.value.reason is Reason.CNF_MISMATCH


@pytest.mark.parametrize("pin", [None, "ca"], ids=["plain HTTP", "a host by its CA"])
def test_a_bound_token_never_goes_where_no_svid_is_shown(pin: str | None, ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.bundle_pem())
    trust = None if pin is None else FileTrust(str(tmp_path / "ca.pem"))
    ends.origins.of(THERE, trust)
    with pytest.raises(Denied) as refused:
        ends.origins.of(THERE, trust, bound_to=thumbprint(ends))
    assert refused.value.reason is Reason.CNF_MISMATCH


def test_a_connection_that_was_opened_while_our_svid_was_renewed_carries_no_bound_token(ends: Ends) -> None:
    assert ends.own.current is not None
    own, in_time = ends.own.current.svid.leaf_sha256, int(time.time()) + 60
    bound, unbound = ends.origins.of(THERE, STS, bound_to=thumbprint(ends)), ends.connect()
    assert bound.still_good is not None
    assert unbound.still_good is not None
    for shown, good in ((own, True), ("ab" * 32, False), (None, False)):
        transport = Transport(ends.own, AUTHORITY, in_time)
        transport.get_extra_info("ssl_object").shown = shown
        assert bound.still_good(transport) is good
        assert unbound.still_good(transport)


def test_a_connection_knows_the_svid_that_it_shows_also_after_a_renewal(ends: Ends) -> None:
    assert ends.own.current is not None
    context = client_context(ends.own, expected=STS)
    begun = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    before = ends.own.current.svid.leaf_sha256
    ends.own.become(WRITER)
    assert begun.shown == before  # type: ignore[attr-defined]
    after = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    assert after.shown == ends.own.current.svid.leaf_sha256 != before  # type: ignore[attr-defined]
    ends.own.become(None)
    assert context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO()).shown is None  # type: ignore[attr-defined]
