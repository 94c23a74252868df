"""Records of the token service's exchanges, made by the service itself from lawful and unlawful requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from delegation_core.errors import SidecarError
from delegation_core.records.reading import Record, record_of
from delegation_core.spiffe_id import SpiffeId
from sidecar.sts.records import ExchangeRecord
from tests.audit.evidence import record
from tests.fakes.sts import FORM, Mesh, encoded
from tests.fakes.tokens import ISSUER, WRITER


async def members(mesh: Mesh, form: Mapping[str, object], client: SpiffeId = WRITER) -> dict[str, Any]:
    """Return the members of the record that the service writes for one request."""
    written = ExchangeRecord(mesh.log, ISSUER)
    written.identify(client)
    try:
        await mesh.service.token(encoded(form), FORM, client=client, record=written)
    except SidecarError as error:
        written.refuse(error, 400)
    event, fields = mesh.log.events[-1]
    plain = json.loads(json.dumps(dict(fields), default=str))
    whole = record(event=event, ts="2026-09-21T14:13:20.000000Z", run="r", seq=len(mesh.log.events))
    known: dict[str, Any] = {**whole, **plain, "workload": "spiffe://acme.example/sts"}
    return known


async def recorded(mesh: Mesh, form: Mapping[str, object], client: SpiffeId = WRITER, **changes: Any) -> Record:
    """Return that record, with these members changed."""
    return record_of({**await members(mesh, form, client), **changes})
