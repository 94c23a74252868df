from __future__ import annotations

from typing import Any, Final

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeId
from sidecar.sts.introspection import parse_introspection, verify_presented
from sidecar.sts.keys import SigningKey
from tests.fakes.sts import LOGIN, Mesh
from tests.fakes.tokens import CRM, WRITER

FORM: Final = "application/x-www-form-urlencoded"


def reason_of(mesh: Mesh, raw: str, client: SpiffeId = WRITER, *, now: int | None = None) -> Reason | None:
    try:
        verify_presented(
            raw,
            client=client,
            policy=mesh.service.policy,
            ring=mesh.service.current_ring(),
            now=mesh.start if now is None else now,
        )
    except Denied as error:
        return error.reason
    return None


def test_a_token_of_ours_is_active_at_its_audience_until_its_last_second() -> None:
    mesh = Mesh()
    raw = mesh.own()
    ends = int(str(mesh.own_claims()["exp"]))
    assert reason_of(mesh, raw) is None
    assert reason_of(mesh, raw, now=ends - 1) is None
    assert reason_of(mesh, raw, now=ends) is Reason.TOKEN_EXPIRED, "the leeway of verifiers does not count"
    assert reason_of(mesh, raw, CRM) is Reason.WRONG_AUDIENCE
    assert reason_of(mesh, mesh.own(iss=LOGIN)) is Reason.WRONG_ISSUER
    assert reason_of(mesh, SigningKey.generate().sign(mesh.own_claims())) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"token=a", "application/json", id="another media type"),
        pytest.param(b"token=a", None, id="no media type"),
        pytest.param(b"token=a&token=b", FORM, id="two tokens"),
        pytest.param(b"token_type_hint=access_token", FORM, id="no token"),
        pytest.param(b"\xff=%", FORM, id="no form"),
    ],
)
def test_a_request_that_is_no_form_with_one_token_is_refused(body: bytes, content_type: Any) -> None:
    assert parse_introspection(b"token=a&token_type_hint=x", FORM) == "a"
    with pytest.raises(Denied) as refused:
        parse_introspection(body, content_type)
    assert refused.value.reason is Reason.EXCHANGE_MALFORMED
