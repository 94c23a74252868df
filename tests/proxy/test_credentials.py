from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from sidecar.proxy.journeys.credentials import Credential, credential_of
from sidecar.proxy.journeys.stray_credentials import stray_handles
from sidecar.wire.message import Field
from tests.wire.written import request_with

HANDLE = "a_-Z" * 10 + "123"
OTHER = "b" * 43
JWT = "eyJh.eyJz.c2ln"


def authorization(value: str) -> Field:
    return (b"authorization", value.encode())


def delegation_handle(value: str) -> Field:
    return (b"delegation-handle", value.encode())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param([authorization(f"Bearer {HANDLE}")], Credential(HANDLE), id="a handle"),
        pytest.param([authorization(f"bEARER   {HANDLE}")], Credential(HANDLE), id="scheme in any case"),
        pytest.param([delegation_handle(HANDLE)], Credential(HANDLE), id="a handle in its own field"),
        pytest.param(
            [authorization(f"Bearer {HANDLE}"), delegation_handle(HANDLE)], Credential(HANDLE), id="the same in both"
        ),
        pytest.param([authorization(f"Bearer {JWT}")], Credential(None, JWT), id="a token"),
        pytest.param(
            [authorization(f"Bearer {JWT}"), delegation_handle(HANDLE)], Credential(HANDLE, JWT), id="a token beside it"
        ),
        pytest.param(
            [authorization("Bearer sk-key"), delegation_handle(HANDLE)],
            Credential(HANDLE, "sk-key"),
            id="a key beside it",
        ),
        pytest.param(
            [authorization("Basic eA=="), delegation_handle(HANDLE)], Credential(HANDLE), id="Basic beside it"
        ),
        pytest.param([delegation_handle("x")], Credential("x"), id="what no handle looks like is none that is known"),
    ],
)
def test_what_an_agent_shows_is_read(fields: list[Field], expected: Credential) -> None:
    assert credential_of(request_with(fields)) == expected


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param([], Reason.NO_REQUEST_CONTEXT, id="nothing"),
        pytest.param([authorization("")], Reason.NO_REQUEST_CONTEXT, id="an empty field"),
        pytest.param([authorization("Bearer")], Reason.NO_REQUEST_CONTEXT, id="a scheme alone"),
        pytest.param([authorization("Bearer ")], Reason.NO_REQUEST_CONTEXT, id="a scheme and a space"),
        pytest.param([authorization(HANDLE)], Reason.NO_REQUEST_CONTEXT, id="no scheme"),
        pytest.param([authorization(f"Basic {HANDLE}")], Reason.NO_REQUEST_CONTEXT, id="another scheme"),
        pytest.param([authorization(f"Bearer {HANDLE} x")], Reason.NO_REQUEST_CONTEXT, id="something after it"),
        pytest.param([authorization(f"Bearer {HANDLE},{OTHER}")], Reason.NO_REQUEST_CONTEXT, id="a list"),
        pytest.param([authorization(f"Bearer {HANDLE[:-1]}")], Reason.NO_REQUEST_CONTEXT, id="too short, no JWT"),
        pytest.param([authorization("Bearer sk-key")], Reason.NO_REQUEST_CONTEXT, id="a key"),
        pytest.param(
            [authorization(f"Bearer {HANDLE}"), delegation_handle(OTHER)], Reason.NO_REQUEST_CONTEXT, id="two handles"
        ),
        pytest.param(
            [delegation_handle(HANDLE), delegation_handle(OTHER)], Reason.NO_REQUEST_CONTEXT, id="two in its own field"
        ),
        pytest.param([delegation_handle(HANDLE)] * 2, Reason.NO_REQUEST_CONTEXT, id="twice the same in its own field"),
        pytest.param([authorization(f"Bearer {HANDLE}")] * 2, Reason.HEADER_MALFORMED, id="doubled, the same"),
        pytest.param(
            [authorization("x"), authorization("y"), delegation_handle(HANDLE)],
            Reason.HEADER_MALFORMED,
            id="doubled beside a handle",
        ),
    ],
)
def test_what_is_not_exactly_one_authority_is_refused(fields: list[Field], reason: Reason) -> None:
    with pytest.raises(Denied) as refused:
        credential_of(request_with(fields))
    assert refused.value.reason is reason


names = st.sampled_from([b"authorization", b"delegation-handle", b"x"])
values = st.one_of(st.binary(max_size=60), st.sampled_from([b"Bearer " + HANDLE.encode(), HANDLE.encode()]))


@given(st.lists(st.tuples(names, values), max_size=4))
def test_any_fields_give_an_authority_or_a_refusal(fields: list[Field]) -> None:
    try:
        credential = credential_of(request_with(fields))
    except Denied:
        return
    assert credential.handle is not None or credential.token is not None


def test_a_handle_that_the_call_shows_is_looked_for_in_longer_text_whichever_worker_made_it() -> None:
    """Its own worker cannot be asked for every part of a text."""
    shown = "C" + HANDLE
    strays = stray_handles(
        request_with([delegation_handle(shown), (b"x", f"sk-{shown}".encode())]), in_authorization=False
    )
    assert (set(strays.alone), set(strays.longer)) == ({shown}, {f"sk-{shown}"})
    other = stray_handles(
        request_with([delegation_handle(shown), (b"x", f"sk-{OTHER}".encode())]), in_authorization=False
    )
    assert set(other.alone) == set()
