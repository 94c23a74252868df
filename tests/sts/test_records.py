from __future__ import annotations

import pytest

from delegation_core.bearer import fingerprint_of
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.records.record import FIELDS
from delegation_core.rfc8693 import CLIENT_CREDENTIALS
from sidecar.sts.records import ExchangeRecord
from tests.fakes.sts import FORM, FRONT, LOGIN, Mesh, encoded
from tests.fakes.tokens import CRM, ISSUER, PLANNER, WRITER


async def test_a_success_records_the_chain_the_links_and_what_was_asked_and_granted() -> None:
    mesh = Mesh()
    answer = await mesh.ask(mesh.exchange_form(scope="crm.write crm.read"))
    ((event, fields),) = mesh.log.events
    fields.pop("request_id")
    assert event == "token.exchanged"
    assert fields == {
        "decision": "allow",
        "reason": "ok",
        "status": 200,
        "verified": True,
        "source": None,
        "subject": "alice",
        "subject_iss": ISSUER,
        "actor": WRITER,
        "chain": [WRITER, PLANNER, FRONT],
        "chain_depth": 3,
        "client_id": WRITER,
        "audience": CRM,
        "scope": ["crm.read"],
        "scope_needed": ["crm.read", "crm.write"],
        "jti_in": "jti-2",
        "jti_out": "new-jti-1",
        "parent_jti": "jti-2",
        "txn": "txn-1",
        "fp": fingerprint_of(str(answer["access_token"])),
        "crossed_from": None,
        "total_ms": 0.0,
    }
    assert set(fields) <= set(FIELDS)


async def test_a_workloads_own_token_is_recorded_without_a_chain() -> None:
    mesh = Mesh()
    await mesh.ask({"grant_type": CLIENT_CREDENTIALS, "audience": CRM}, PLANNER)
    ((event, fields),) = mesh.log.events
    assert (event, fields["subject"], fields["chain"], fields["parent_jti"]) == ("token.exchanged", PLANNER, None, None)
    assert fields["scope_needed"] is None


async def refused_record(mesh: Mesh, form: dict[str, object]) -> tuple[ExchangeRecord, SidecarError]:
    record = ExchangeRecord(mesh.log, ISSUER, source="192.0.2.7")
    record.identify(WRITER)
    with pytest.raises(SidecarError) as refused:
        await mesh.service.token(encoded(form), FORM, client=WRITER, record=record)
    record.refuse(refused.value, 400)
    return record, refused.value


async def test_a_refusal_after_verification_tells_of_the_subject_token() -> None:
    mesh = Mesh()
    token = mesh.own()
    await refused_record(mesh, mesh.exchange_form(subject_token=token, audience=PLANNER))
    ((event, fields),) = mesh.log.events
    assert event == "token.exchange_refused"
    assert (fields["decision"], fields["reason"], fields["status"]) == ("deny", Reason.TARGET_UNKNOWN, 400)
    assert (fields["peer"], fields["source"], fields["verified"]) == (WRITER, "192.0.2.7", True)
    assert (fields["subject"], fields["jti_in"], fields["txn"], fields["parent_jti"]) == (
        "alice",
        "jti-2",
        "txn-1",
        "jti-1",
    )
    assert (fields["chain"], fields["actor"], fields["chain_depth"]) == ([PLANNER, FRONT], PLANNER, 2)
    assert (fields["fp"], fields["audience"], fields["scope_needed"]) == (fingerprint_of(token), PLANNER, ["crm.read"])
    assert "jti_out" not in fields


async def test_what_a_login_calls_its_transaction_is_not_recorded_as_one_of_ours() -> None:
    mesh = Mesh()
    record = ExchangeRecord(mesh.log, ISSUER)
    form = mesh.login_form(subject_token=mesh.login(txn="txn-1"), audience=CRM)
    with pytest.raises(SidecarError) as refused:
        await mesh.service.token(encoded(form), FORM, client=FRONT, record=record)
    record.refuse(refused.value, 400)
    ((_, fields),) = mesh.log.events
    assert (fields["verified"], fields["subject"], fields["txn"]) == (True, "alice", None)


async def test_claims_of_a_token_that_did_not_verify_are_marked_as_such() -> None:
    mesh = Mesh()
    token = mesh.own(aud=CRM)
    await refused_record(mesh, mesh.exchange_form(subject_token=token))
    ((_, fields),) = mesh.log.events
    assert (fields["reason"], fields["verified"]) == (Reason.NOT_YOUR_TOKEN, False)
    assert (fields["subject"], fields["subject_iss"], fields["jti_in"]) == ("alice", ISSUER, "jti-2")
    assert fields["fp"] == fingerprint_of(token)


async def test_claims_of_another_type_are_not_recorded() -> None:
    mesh = Mesh()
    await refused_record(mesh, mesh.exchange_form(subject_token=mesh.own(sub=7, jti=[])))
    ((_, fields),) = mesh.log.events
    assert (fields["subject"], fields["jti_in"]) == (None, None)


async def test_one_request_leaves_one_record_and_one_count() -> None:
    mesh = Mesh()
    mesh.log.metrics.declare_issuers([ISSUER])
    record, error = await refused_record(mesh, mesh.exchange_form(audience=PLANNER))
    record.refuse(error, 400)
    await mesh.ask(mesh.exchange_form())
    assert [event for event, _ in mesh.log.events] == ["token.exchange_refused", "token.exchanged"]
    assert dict(mesh.log.metrics.exchanges) == {(ISSUER, "target_unknown"): 1, (ISSUER, "ok"): 1}


async def test_no_token_is_ever_recorded() -> None:
    mesh = Mesh()
    forms = [
        mesh.exchange_form(),
        mesh.exchange_form(audience=PLANNER),
        mesh.exchange_form(subject_token=mesh.own(aud=CRM)),
        mesh.exchange_form(actor_token=mesh.svid(PLANNER)),
        mesh.exchange_form(subject_token=mesh.own() + "x"),
        mesh.exchange_form(subject_token=mesh.login(iss=LOGIN)),
    ]
    secrets = {str(form[name]) for form in forms for name in ("subject_token", "actor_token")}
    for form in forms:
        record = ExchangeRecord(mesh.log, ISSUER)
        try:
            answer = await mesh.service.token(encoded(form), FORM, client=WRITER, record=record)
            secrets.add(str(answer["access_token"]))
        except Denied as error:
            record.refuse(error, 400)
    written = repr(mesh.log.events)
    assert len(mesh.log.events) == len(forms)
    assert not [secret for secret in secrets if secret.split(".")[1] in written or secret.split(".")[2] in written]
