"""The status documents with hostile and many requests. `integration/test_admin.py` tests a whole sidecar."""

from __future__ import annotations

from delegation_core.errors import Denied, Reason
from sidecar.proxy.listening.status import SettingsState, chains_of, status_of
from sidecar.proxy.listening.status_merge import MAX_CHAINS
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.tokens import TRUST_DOMAIN, TokenMint
from tests.proxy.test_server import Bench


def bench() -> Bench:
    return Bench(TrustDomainAuthority(TRUST_DOMAIN), identity=None)


async def test_what_a_caller_chose_neither_acts_on_a_terminal_nor_carries_a_token() -> None:
    served = bench()
    entry = served.parts.log.reserve()
    token = TokenMint().mint()
    entry.subject, entry.peer = "alice\x1b[2J\u202e", f"x{token}"
    (row,) = chains_of(served.server)["chains"]
    assert row["subject"] == "alice\\u{1b}[2J\\u{202e}"
    assert token[:40] not in row["peer"]
    assert row["verified"] is False
    entry.close()
    await served.parts.log.close()


async def test_of_very_many_requests_only_the_longest_are_told_and_all_are_counted() -> None:
    served = bench()
    entries = [served.parts.log.reserve() for _ in range(MAX_CHAINS + 1)]
    told = chains_of(served.server)
    assert told["being_served"] == MAX_CHAINS + 1
    assert [row["request_id"] for row in told["chains"]] == [entry.request_id for entry in entries[:MAX_CHAINS]]
    for entry in entries:
        entry.close()
    assert chains_of(served.server)["being_served"] == 0
    await served.parts.log.close()


async def test_without_an_identity_it_says_so_and_what_is_missing() -> None:
    served = bench()
    told = status_of(served.server, SettingsState(loaded_at=1), since=1, now=2)
    assert (told["ready"], told["identity"]["spiffe_id"], told["identity"]["not_after"]) == (False, None, None)
    assert told["missing"][0] == "identity: denied"
    assert told["exchanges"] == []
    await served.parts.log.close()


async def test_what_was_refused_is_counted_by_reason_the_most_frequent_first() -> None:
    served = bench()
    for reason in (Reason.NO_TOKEN, Reason.ACTOR_MISMATCH, Reason.NO_TOKEN):
        entry = served.parts.log.reserve()
        entry.refuse(Denied(reason))
        entry.close()
    served.server.metrics.handshake_refused(Reason.BAD_SVID)
    told = status_of(served.server, SettingsState(loaded_at=1), since=1, now=2)["refused"]
    assert (told["no_token"], told["actor_mismatch"], told["bad_svid"]) == (2, 1, 1)
    assert next(iter(told)) == "no_token"
    assert 0 not in told.values()
    await served.parts.log.close()
