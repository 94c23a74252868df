"""Facts about the server's tokens and answers, for the profile of its issuer. No verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from sidecar.doctor.attempts import Attempt, Examination
from sidecar.doctor.cells import some
from sidecar.doctor.clients import Method, TestClient
from sidecar.doctor.names import Probe
from sidecar.doctor.probes_protocol import is_bound
from sidecar.doctor.reading import Reading
from sidecar.doctor.verdicts_actor import act_of, with_actor

_ABSENT: Final = "none"


def main_exchange(found: Examination) -> Attempt | None:
    """Return the exchange for the facts: the accepted one with an actor token, else the plain one; None if neither."""
    for one in (with_actor(found), found[Probe.PLAIN]):
        if one is not None and one.accepted:
            return one
    return None


def facts_of(found: Examination) -> dict[str, str]:
    """Return each fact by its name, in the order of the page."""
    attempt = main_exchange(found)
    facts = {"client authentication proven": _name_accepted_methods(found), "refusals": _refusals(found)}
    if attempt is None:
        return facts
    reading = attempt.reading
    kind = found.opaque.kind if found.opaque is not None else reading.kind
    facts["access token"] = kind if found.opaque is None else f"{kind}; read here: another kind of token"
    if found.opaque is None and reading.by != "the token":
        facts["access token"] = f"{kind}, read by introspection"
    facts["refresh token"] = "issued, too" if _refreshes(found) else "not issued"
    if reading.claims is not None:
        facts |= _form(found, attempt, reading)
    return facts


def _form(found: Examination, attempt: Attempt, reading: Reading) -> dict[str, str]:
    scope = reading.scope_claim
    audience = next((a for n in (Probe.AUDIENCE, Probe.HOP_1) if (a := found[n]) and a.accepted), attempt)
    act = act_of(attempt)
    return {
        "issuer": _issuer(found, reading),
        "signature": f"{reading.header.get('alg', '?')}, {reading.signature}" if reading.header else "not verified",
        "header typ": _text(reading.header.get("typ")) if reading.header else "cannot see",
        "payload typ": _text(reading.claim("typ")) + _when_bound(found, reading),
        "scope claim": _ABSENT if scope is None else f"{scope[0]}, {scope[1]}",
        "client in the token": ", ".join(reading.clients) or _ABSENT,
        "shape of aud": _shape(audience.reading.claim("aud")),
        "members of act": _ABSENT if act is None else ", ".join(name for name in act if name != "act"),
        "jti": "new" if _new_jti(found, reading) else "none or the subject's",
    }


def _name_accepted_methods(found: Examination) -> str:
    """Return the methods by which an exchange was accepted."""
    accepted = (one.draft for one in found.attempts.values() if one.accepted and one.draft is not None)
    clients = (draft.client for draft in accepted if not draft.wrong and not draft.bare)
    named = (f"{_ABSENT} (public client)" if _is_public(one) else one.method.value for one in clients)
    return ", ".join(dict.fromkeys(named)) or _ABSENT


def _is_public(client: TestClient) -> bool:
    return client.method is Method.NONE or (client.method is Method.BASIC and not client.secret)


def _refusals(found: Examination) -> str:
    """Return the commonest refusals, by status and code."""
    counts = Counter(
        one.answer.told
        for one in found.attempts.values()
        if one.refused and one.draft is not None and not one.draft.wrong
    )
    return _join_names(told for told, _ in counts.most_common()) or "none seen"


def _join_names(values: Iterable[str]) -> str:
    return " / ".join(values)


def _refreshes(found: Examination) -> bool:
    return any("refresh_token" in one.answer.members for one in found.attempts.values() if one.accepted)


def _issuer(found: Examination, reading: Reading) -> str:
    told, expected = reading.claim("iss"), found.case.server.issuer
    if not isinstance(told, str):
        return _ABSENT
    return told if expected in (None, told) else f"{told}, not the {expected} of its metadata"


def _new_jti(found: Examination, reading: Reading) -> bool:
    jti = reading.claim("jti")
    return isinstance(jti, str) and jti != found.subject.claim("jti")


def _when_bound(found: Examination, reading: Reading) -> str:
    """Return a note on the payload ``typ`` of a sender-bound token, empty unless it differs from an unbound token's."""
    bound = found[Probe.BOUND]
    typ = None if bound is None or not is_bound(bound) else bound.reading.claim("typ")
    return f"; {_text(typ)} if sender-bound" if typ != reading.claim("typ") and isinstance(typ, str) else ""


def _shape(value: object) -> str:
    if isinstance(value, str):
        return "string"
    return f"list of {len(value)}" if isinstance(value, list) else "absent"


def _text(value: object) -> str:
    return some([value]) if isinstance(value, str) else _ABSENT
