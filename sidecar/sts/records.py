"""The record of one request at the token endpoint: filled in as facts become known, written once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, Unpack

from delegation_core.act import parse_act
from delegation_core.bearer import Bearer, fingerprint_of
from delegation_core.errors import Reason, SidecarError
from delegation_core.records.record import OK, RecordFields
from delegation_core.records.record_text import masked
from delegation_core.rfc8693 import ClientCredentialsRequest, ExchangeRequest
from delegation_core.verify import VerifiedToken
from sidecar.observe.metrics import Metrics
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.observe.tracing import new_id
from sidecar.sts.mint import Grant


class EventLog(Protocol):
    """The parts of ``observe.access_log.AccessLog`` that the token service uses."""

    @property
    def healthy(self) -> bool:
        """True if a record could be written now."""
        ...

    @property
    def workload(self) -> str | None:
        """Our own SPIFFE ID, once it is known."""
        ...

    @property
    def monotonic(self) -> Callable[[], float]:
        """Return a clock, in seconds."""
        ...

    @property
    def metrics(self) -> Metrics:
        """All metrics of the process."""
        ...

    def event(self, event: str, **fields: Unpack[RecordFields]) -> None:
        """Write one record."""
        ...


class ExchangeRecord:
    """One ``token.exchanged``, ``token.exchange_refused`` or ``token.introspected``, and one count.

    A refusal describes the subject token (``verified`` says if it was verified), a success the issued one; ``jti_in``
    and ``jti_out`` join the two. ``scope_needed`` was asked for, ``scope`` was granted. While the client is not
    identified, ``unproven`` decides if its record is written; it is counted in any case.
    """

    def __init__(
        self, log: EventLog, issuer: str, *, source: str | None = None, unproven: UnprovenRecords | None = None
    ) -> None:
        self._log = log
        self._unproven = unproven
        self._issuer = issuer
        self._started_at = log.monotonic()
        self._written = False
        self._crossed_from: str | None = None
        self._fields: RecordFields = {"request_id": new_id(), "source": source, "verified": False}

    @property
    def request_id(self) -> str:
        """Identifies this request in the answer to an internal error."""
        return self._fields["request_id"] or ""

    def identify(self, client: str) -> None:
        """Note the client's verified identity."""
        self._fields["peer"] = client

    def ask(self, request: ExchangeRequest | ClientCredentialsRequest) -> None:
        """Note the request's parameters, as the client states them."""
        self._fields["audience"] = " ".join((*request.audience, *request.resource)) or None
        self._fields["scope_needed"] = None if request.scope is None else sorted(request.scope)

    def claim_unverified(self, bearer: Bearer) -> None:
        """Note the subject token's claims before verification."""
        subject, jti = bearer.claims.get("sub"), bearer.claims.get("jti")
        self._fields |= {
            "subject": subject if isinstance(subject, str) else None,
            "subject_iss": bearer.issuer,
            "jti_in": jti if isinstance(jti, str) else None,
            "fp": bearer.fingerprint,
        }

    def attribute(self, token: VerifiedToken, *, foreign: bool = False) -> None:
        """Note the verified subject token; ``foreign`` if it is delegated by another token service."""
        self._crossed_from = token.issuer if foreign else None
        self._fields |= {
            "verified": True,
            "subject": token.subject,
            "subject_iss": token.issuer,
            "client_id": token.client_id,
            "jti_in": token.jti,
            "parent_jti": token.parent_jti,
            "txn": token.txn if foreign or token.issuer == self._issuer else None,  # a login's names no chain of ours
            "fp": token.fingerprint,
            "scope": sorted(token.scope),
        }
        if token.chain is not None:
            self._fields |= {
                "actor": token.chain.current.subject,
                "chain": list(token.chain.subjects),
                "chain_depth": token.chain.depth,
            }

    def grant(self, grant: Grant, token: str) -> None:
        """Write the record of a signed token."""
        claims = grant.claims
        chain = parse_act(claims)
        self._fields |= {
            "decision": "allow",
            "reason": OK,
            "status": 200,
            "verified": True,
            "subject": _text(claims, "sub"),
            "subject_iss": self._issuer,
            "client_id": _text(claims, "client_id"),
            "audience": _text(claims, "aud"),
            "scope": sorted(grant.scope),
            "actor": None if chain is None else chain.current.subject,
            "chain": None if chain is None else list(chain.subjects),
            "chain_depth": None if chain is None else chain.depth,
            "jti_out": _text(claims, "jti"),
            "parent_jti": _text(claims, "parent_jti"),
            "txn": _text(claims, "txn"),
            "fp": fingerprint_of(token),
            "crossed_from": self._crossed_from,
        }
        actors = () if chain is None else chain.subjects
        self._log.metrics.population.saw(self._issuer, str(claims.get("sub")), actors)
        self._write("token.exchanged", None)

    def refuse(self, error: SidecarError, status: int) -> None:
        """Write the record of a refusal."""
        self._fields |= {"decision": "deny", "reason": error.reason, "status": status, "detail": error.detail or None}
        self._write("token.exchange_refused", error.reason)

    def introspected(self, answer: VerifiedToken | SidecarError) -> None:
        """Write the record of an introspection: the active token, or the reason for the answer "inactive"."""
        if isinstance(answer, SidecarError):
            self._fields |= {"decision": "deny", "reason": answer.reason, "detail": answer.detail or None}
        else:
            self._fields |= {"decision": "allow", "reason": OK, "verified": True, "jti_in": answer.jti}
            self._fields |= {"subject": answer.subject, "subject_iss": answer.issuer}
        self._fields |= {"status": 200, "total_ms": round(self._seconds() * 1000, 3)}
        self._written = True
        self._log.metrics.introspections["inactive" if isinstance(answer, SidecarError) else "active"] += 1
        self._log.event("token.introspected", **masked(self._fields))

    def _seconds(self) -> float:
        return self._log.monotonic() - self._started_at

    def _write(self, event: str, reason: Reason | None) -> None:
        if self._written:
            return
        self._written = True
        seconds = self._seconds()
        self._fields["total_ms"] = round(seconds * 1000, 3)
        self._log.metrics.exchange(self._issuer, reason, seconds)
        if "peer" not in self._fields and self._unproven is not None:
            if not self._unproven.take():
                return
            self._fields["suppressed"] = self._unproven.suppressed()
        self._log.event(event, **masked(self._fields))


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) else None
