from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from delegation_core.profile import DEFAULT_ALGORITHMS
from delegation_core.revocation_list import parse_list, parse_unchanged, verify_list, verify_unchanged
from delegation_core.revocations_kept import NONE, Knowledge
from delegation_core.steps import at_once
from sidecar.sts.keys import SigningKey
from sidecar.sts.signed_list import SignedList
from tests.fakes.tokens import ISSUER, NOW

KEY: Final = SigningKey.generate()
KNOWN: Final = Knowledge(issued_at=NOW, heard=(NOW - 40, NOW - 3))
LATER: Final = pytest.mark.parametrize(
    ("later", "key", "again"),
    [
        pytest.param(KNOWN, KEY, False, id="at the same time"),
        pytest.param(replace(KNOWN, issued_at=NOW + 1), KEY, False, id="a second later"),
        pytest.param(replace(KNOWN, issued_at=NOW + 2), KEY, True, id="two seconds later"),
        pytest.param(replace(KNOWN, issued_at=NOW - 1), KEY, True, id="after the clock fell"),
        pytest.param(replace(KNOWN, heard=(NOW - 40, NOW)), KEY, True, id="with a peer heard again"),
        pytest.param(KNOWN, SigningKey.generate(), True, id="with another key"),
    ],
)


@LATER
async def test_a_list_is_signed_again_when_it_would_say_something_else_or_look_old(
    later: Knowledge, key: SigningKey, again: bool
) -> None:
    served = SignedList()
    tag, first = await served.signed(NONE, KNOWN, issuer=ISSUER, key=KEY)
    _, raw = await served.signed(NONE, later, issuer=ISSUER, key=key)
    assert (raw != first) is again
    said = at_once(
        verify_list(
            at_once(parse_list(raw)),
            issuer=ISSUER,
            key=key.verification_key,
            algorithms=DEFAULT_ALGORITHMS,
            now=NOW,
        )
    )
    assert said.heard == later.heard
    assert tag == await served.tag(NONE)


@LATER
async def test_a_confirmation_is_signed_again_likewise_and_is_no_list(
    later: Knowledge, key: SigningKey, again: bool
) -> None:
    served = SignedList()
    tag = await served.tag(NONE)
    first = served.unchanged(tag, KNOWN, issuer=ISSUER, key=KEY)
    raw = served.unchanged(tag, later, issuer=ISSUER, key=key)
    assert (raw != first) is again
    said = verify_unchanged(
        parse_unchanged(raw),
        issuer=ISSUER,
        tag=tag,
        key=key.verification_key,
        algorithms=DEFAULT_ALGORITHMS,
        now=NOW,
    )
    assert said.heard == later.heard
    assert served.unchanged('"other"', later, issuer=ISSUER, key=key) != raw
    with pytest.raises(ValueError, match="typ"):
        at_once(parse_list(raw.encode()))
