from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pytest

from delegation_core.bearer import MAX_TOKEN_BYTES, parse_bearer
from delegation_core.checkpoint import Head, head_form
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.rfc8693 import (
    CLIENT_CREDENTIALS,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
    TOKEN_TYPE_REFRESH_TOKEN,
)
from delegation_core.spiffe_id import SpiffeId
from sidecar.sts import service
from sidecar.sts.keys import KeyRing, SigningKey
from sidecar.sts.mint import ClientCertificate
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rate import ExchangeRate, RateSettings
from sidecar.sts.records import ExchangeRecord
from sidecar.sts.rules import ANYONE, EntryWorkload, LoginKind, Rule, SubjectMatch
from sidecar.sts.schedule import ANNOUNCE_S, LATE_S, KeySchedule, TimedKey
from sidecar.sts.service import fresh_names
from tests.fakes.sts import (
    ALL_USERS,
    CRM_URL,
    FORM,
    FRONT,
    LOGIN,
    OTHER_LOGIN,
    PARTNER,
    STRANGER,
    Mesh,
    encoded,
    login_issuer,
    scopes,
    small_policy,
    trusted,
)
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, PLANNER, WRITER, SvidMint, TokenMint, base64url, encode, sign

Form = Callable[[Mesh], Mapping[str, object]]


def exchange(client: SpiffeId = WRITER, **changes: object) -> Form:
    """Return writer's exchange for the CRM with these parameters changed; a callable value gets the mesh."""
    return lambda mesh: mesh.exchange_form(client, **_made(mesh, changes))


def login(client: SpiffeId = FRONT, **changes: object) -> Form:
    """Return front's exchange of a login token, with these parameters changed."""
    return lambda mesh: mesh.login_form(client, **_made(mesh, changes))


def own(**changes: object) -> Callable[[Mesh], str]:
    return lambda mesh: mesh.own(**changes)


def id_token(**changes: object) -> Callable[[Mesh], str]:
    return lambda mesh: mesh.login(**changes)


def svid(spiffe_id: object = WRITER, **changes: object) -> Callable[[Mesh], str]:
    return lambda mesh: mesh.svid(spiffe_id, **changes)


def _made(mesh: Mesh, changes: Mapping[str, object]) -> dict[str, object]:
    return {name: value(mesh) if callable(value) else value for name, value in changes.items()}


def itself(**changes: object) -> Form:
    """Return planner's request for its own token at the CRM."""
    lawful = {"grant_type": CLIENT_CREDENTIALS, "audience": CRM, "scope": "crm.read"}
    return lambda _mesh: {**lawful, **changes}


LAWFUL: Final = exchange()
CLIENT_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True)
class Attack:
    """One attack on one rule, and the lawful request that differs from it in one fact."""

    rule: str
    what: str
    form: Form
    reason: Reason
    client: SpiffeId = WRITER
    twin: Form = LAWFUL
    twin_client: SpiffeId | None = None


def at_entry(rule: str, what: str, reason: Reason, form: Form, client: SpiffeId = FRONT) -> Attack:
    return Attack(rule, what, form, reason, client=client, twin=login(), twin_client=FRONT)


def by_itself(rule: str, what: str, reason: Reason, form: Form, client: SpiffeId = PLANNER) -> Attack:
    return Attack(rule, what, form, reason, client=client, twin=itself(), twin_client=PLANNER)


def headed(**changes: object) -> Callable[[Mesh], str]:
    """Return writer's token with our own key, with these header members changed."""

    def minted(mesh: Mesh) -> str:
        key = mesh.ring.active
        head = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid, **changes}
        head = {name: value for name, value in head.items() if value is not ABSENT}
        signed = f"{base64url(encode(head))}.{base64url(encode(mesh.own_claims()))}"
        return f"{signed}.{base64url(sign(key.algorithm, key.private_key, signed.encode()))}"

    return minted


def chain_of(actors: int) -> dict[str, object]:
    return {"sub": PLANNER} if actors == 1 else {"sub": PLANNER, "act": chain_of(actors - 1)}


# RFC 8693 and this service's additional rules: each attack beside its lawful twin.
ATTACKS: Final = (
    # Tolerance for real clients, none for ambiguity.
    Attack("S0", "a parameter twice", exchange(scope=["crm.read", "crm.read"]), Reason.EXCHANGE_MALFORMED),
    Attack("S0", "no grant type", exchange(grant_type=""), Reason.EXCHANGE_MALFORMED),
    Attack("S0", "another grant", exchange(grant_type="password"), Reason.GRANT_NOT_SUPPORTED),
    # The client is the actor, on a channel that proves it.
    Attack("S1", "another's actor token", exchange(actor_token=svid(PLANNER)), Reason.ACTOR_NOT_CLIENT),
    Attack("S1", "stolen by another client", exchange(), Reason.ACTOR_NOT_CLIENT, client=PLANNER),
    Attack(
        "S1",
        "the same name in another domain",
        exchange(actor_token=svid("spiffe://partner.example/agent/writer")),
        Reason.ACTOR_TOKEN_INVALID,
    ),
    Attack(
        "S1",
        "another's SVID as client assertion",
        exchange(client_assertion=svid(), client_assertion_type=CLIENT_ASSERTION),
        Reason.ACTOR_NOT_CLIENT,
        client=PLANNER,
        twin=exchange(client_assertion=svid(PLANNER), client_assertion_type=CLIENT_ASSERTION),
    ),
    # Types are known and consistent.
    Attack("S2", "unknown subject type", exchange(subject_token_type="urn:x:saml"), Reason.EXCHANGE_MALFORMED),
    Attack(
        "S2", "an access token as id_token", exchange(subject_token_type=TOKEN_TYPE_ID_TOKEN), Reason.EXCHANGE_MALFORMED
    ),
    Attack(
        "S2", "actor as access token", exchange(actor_token_type=TOKEN_TYPE_ACCESS_TOKEN), Reason.EXCHANGE_MALFORMED
    ),
    Attack(
        "S2",
        "a refresh token wanted",
        exchange(requested_token_type=TOKEN_TYPE_REFRESH_TOKEN),
        Reason.EXCHANGE_MALFORMED,
    ),
    Attack("S3", "actor type without token", exchange(actor_token=ABSENT), Reason.EXCHANGE_MALFORMED),
    Attack("S3", "actor token without type", exchange(actor_token_type=""), Reason.EXCHANGE_MALFORMED),
    # The subject token is valid in itself.
    Attack("S4", "an unknown issuer", exchange(subject_token=own(iss="https://evil.example")), Reason.WRONG_ISSUER),
    Attack("S4", "expired", exchange(subject_token=own(iat=NOW - 400, exp=NOW - 100)), Reason.TOKEN_EXPIRED),
    Attack("S4", "expired within the leeway", exchange(subject_token=own(exp=NOW)), Reason.TOKEN_EXPIRED),
    Attack("S4", "issued in the future", exchange(subject_token=own(iat=NOW + 100)), Reason.TOKEN_NOT_YET_VALID),
    Attack("S4", "no token at all", exchange(subject_token="hello"), Reason.MALFORMED_TOKEN),
    Attack("S4", "a JWT-SVID", exchange(subject_token=svid(WRITER, iss=ISSUER)), Reason.TOKEN_TYPE),
    Attack("S4", "another's key", exchange(subject_token=lambda mesh: forged(mesh)), Reason.BAD_SIGNATURE),
    Attack(
        "S4",
        "an unknown key",
        exchange(subject_token=lambda mesh: SigningKey.generate().sign(mesh.own_claims())),
        Reason.UNKNOWN_KEY,
    ),
    Attack("S4", "a transaction token of ours", exchange(subject_token=headed(typ="txntoken+jwt")), Reason.TOKEN_TYPE),
    Attack("S4", "an untyped token of ours", exchange(subject_token=headed(typ=ABSENT)), Reason.TOKEN_TYPE),
    Attack("S4", "unsigned", exchange(subject_token=headed(alg="none")), Reason.ALG_NOT_ALLOWED),
    Attack(
        "S4", "by our public key as a password", exchange(subject_token=headed(alg="HS256")), Reason.ALG_NOT_ALLOWED
    ),
    Attack("S4", "without a kid", exchange(subject_token=headed(kid=ABSENT)), Reason.UNKNOWN_KEY),
    Attack("S4", "a key of its own", exchange(subject_token=headed(jwk={"kty": "EC"})), Reason.MALFORMED_TOKEN),
    Attack("S4", "an extension to be understood", exchange(subject_token=headed(crit=["x"])), Reason.MALFORMED_TOKEN),
    # The requester owns the subject token's one audience.
    Attack("S5", "issued to another workload", exchange(subject_token=own(aud=CRM)), Reason.NOT_YOUR_TOKEN),
    Attack(
        "S5",
        "issued to a name that starts like ours",
        exchange(subject_token=own(aud=WRITER + "2")),
        Reason.NOT_YOUR_TOKEN,
    ),
    Attack("S5", "stolen, with own SVID", exchange(PLANNER, audience=WRITER), Reason.NOT_YOUR_TOKEN, client=PLANNER),
    Attack("S5", "two audiences", exchange(subject_token=own(aud=[WRITER, CRM])), Reason.NOT_YOUR_TOKEN),
    Attack("S5", "made for this service", exchange(subject_token=own(aud=ISSUER)), Reason.NOT_YOUR_TOKEN),
    # The actor token is a JWT-SVID for this service, without delegation.
    Attack(
        "S6",
        "for another audience",
        exchange(actor_token=svid(aud=["https://other.example"])),
        Reason.ACTOR_TOKEN_INVALID,
    ),
    Attack("S6", "good elsewhere as well", exchange(actor_token=svid(aud=[ISSUER, CRM])), Reason.ACTOR_TOKEN_INVALID),
    Attack("S6", "itself delegated", exchange(actor_token=svid(act={"sub": PLANNER})), Reason.ACTOR_TOKEN_INVALID),
    Attack("S6", "expired", exchange(actor_token=svid(exp=NOW - 100)), Reason.ACTOR_TOKEN_INVALID),
    Attack("S6", "an access token", exchange(actor_token=own()), Reason.ACTOR_TOKEN_INVALID),
    Attack("S6", "no SPIFFE ID", exchange(actor_token=svid("writer")), Reason.ACTOR_TOKEN_INVALID),
    Attack(
        "S6",
        "an unknown key",
        exchange(actor_token=lambda mesh: SvidMint(kid="k9").mint(mesh.svids.claims(sub=WRITER))),
        Reason.ACTOR_TOKEN_INVALID,
    ),
    Attack(
        "S6",
        "signed by another domain",
        exchange(actor_token=lambda mesh: mesh.partner.mint(mesh.svids.claims(sub=WRITER))),
        Reason.ACTOR_TOKEN_INVALID,
    ),
    Attack(
        "S6",
        "signed by another key",
        exchange(actor_token=lambda mesh: SvidMint(key=5).mint(mesh.svids.claims(sub=WRITER))),
        Reason.ACTOR_TOKEN_INVALID,
    ),
    # may_act binds, and a rule is always needed.
    Attack("S7", "may_act names another", exchange(subject_token=own(may_act={"sub": CRM})), Reason.MAY_ACT_REFUSED),
    Attack(
        "S7",
        "may_act has a member we are not",
        exchange(subject_token=own(may_act={"sub": WRITER, "iss": "https://x.example"})),
        Reason.MAY_ACT_REFUSED,
    ),
    Attack("S7", "may_act names nobody", exchange(subject_token=own(may_act={})), Reason.MAY_ACT_REFUSED),
    Attack("S7", "may_act is not an object", exchange(subject_token=own(may_act=WRITER)), Reason.MAY_ACT_REFUSED),
    Attack("S7", "may_act is a list", exchange(subject_token=own(may_act=[{"sub": WRITER}])), Reason.MAY_ACT_REFUSED),
    Attack(
        "S7",
        "may_act holds an object",
        exchange(subject_token=own(may_act={"sub": {"sub": WRITER}})),
        Reason.MAY_ACT_REFUSED,
    ),
    Attack("S7", "may_act is null", exchange(subject_token=own(may_act=None)), Reason.MAY_ACT_REFUSED),
    Attack(
        "S7",
        "no rule for this subject",
        exchange(subject_token=own(sub="bob", sub_id={"format": "iss_sub", "iss": LOGIN, "sub": "bob"})),
        Reason.DELEGATION_NOT_ALLOWED,
    ),
    Attack(
        "S7",
        "the rule's subject, of another issuer",
        exchange(subject_token=own(sub_id={"format": "iss_sub", "iss": OTHER_LOGIN, "sub": "alice"})),
        Reason.DELEGATION_NOT_ALLOWED,
    ),
    Attack(
        "S7",
        "the rule's subject, of no known issuer",
        exchange(subject_token=own(sub_id=ABSENT)),
        Reason.DELEGATION_NOT_ALLOWED,
    ),
    # The chain is kept whole, and names nobody twice in a row.
    Attack("S8", "already the current actor", exchange(subject_token=own(act={"sub": WRITER})), Reason.SELF_DELEGATION),
    Attack("S8", "act is a name", exchange(subject_token=own(act=PLANNER)), Reason.ACT_MALFORMED),
    Attack(
        "S9",
        "the ninth actor",
        exchange(subject_token=own(act=chain_of(8))),
        Reason.ACT_TOO_DEEP,
        twin=exchange(subject_token=own(act=chain_of(7))),
    ),
    # Scope only narrows.
    Attack("S10", "not in the subject token", exchange(subject_token=own(scope="docs.read")), Reason.SCOPE_REFUSED),
    Attack(
        "S10",
        "in the target, in no rule",
        exchange(subject_token=own(scope="crm.write"), scope="crm.write"),
        Reason.SCOPE_REFUSED,
    ),
    Attack("S10", "in the token, in no rule of this actor", exchange(scope="docs.read"), Reason.SCOPE_REFUSED),
    Attack("S10", "another case", exchange(scope="CRM.read"), Reason.SCOPE_REFUSED),
    Attack(
        "S10",
        "nothing asked, nothing left",
        exchange(subject_token=own(scope="docs.read"), scope=ABSENT),
        Reason.SCOPE_REFUSED,
    ),
    Attack("S10", "a subject token without scope", exchange(subject_token=own(scope=ABSENT)), Reason.SCOPE_REFUSED),
    Attack("S10", "two spaces", exchange(scope="crm.read  crm.read"), Reason.SCOPE_REFUSED),
    # One target, known, under a known name.
    Attack("S11", "no target", exchange(audience=""), Reason.TARGET_UNKNOWN),
    Attack("S11", "two targets", exchange(audience=[CRM, WRITER]), Reason.TARGET_UNKNOWN),
    Attack("S11", "two names of one target", exchange(audience=CRM, resource=CRM_URL), Reason.TARGET_UNKNOWN),
    Attack("S11", "an unknown target", exchange(audience="spiffe://acme.example/tool/mail"), Reason.TARGET_UNKNOWN),
    Attack(
        "S11",
        "a name that starts like the target's",
        exchange(resource=CRM_URL + "/", audience=""),
        Reason.TARGET_UNKNOWN,
    ),
    Attack("S11", "a target for which the actor has no rule", exchange(audience=PLANNER), Reason.TARGET_UNKNOWN),
    # A token is bound to who sent it to the client, which only the client sees; other bindings nobody can check.
    Attack("S13", "bound in another way", exchange(subject_token=own(cnf={"jkt": "x"})), Reason.CNF_MISMATCH),
    # Delegation or nothing.
    Attack("S14", "no actor", exchange(actor_token=ABSENT, actor_token_type=ABSENT), Reason.ACTOR_REQUIRED),
    Attack("S14", "an empty actor", exchange(actor_token="", actor_token_type=""), Reason.ACTOR_REQUIRED),
    by_itself("S14", "a pair that is not listed", Reason.TARGET_UNKNOWN, itself(audience=WRITER)),
    by_itself("S14", "a workload that is not listed", Reason.TARGET_UNKNOWN, itself(), WRITER),
    by_itself("S14", "an unknown target", Reason.TARGET_UNKNOWN, itself(audience="spiffe://acme.example/x")),
    by_itself("S14", "more than listed", Reason.SCOPE_REFUSED, itself(scope="crm.write")),
    # Chains start where users log in, with that login's token.
    at_entry("S17", "at a workload that is not an entry", Reason.NOT_AN_ENTRY, login(PLANNER), PLANNER),
    at_entry(
        "S17", "a login at another application", Reason.NOT_YOUR_TOKEN, login(subject_token=id_token(aud="other-app"))
    ),
    at_entry(
        "S17", "given to another application", Reason.NOT_YOUR_TOKEN, login(subject_token=id_token(azp="other-app"))
    ),
    at_entry(
        "S17",
        "another kind than configured",
        Reason.EXCHANGE_MALFORMED,
        login(subject_token_type=TOKEN_TYPE_ACCESS_TOKEN),
    ),
    at_entry(
        "S17", "of an issuer that is none here", Reason.WRONG_ISSUER, login(subject_token=id_token(iss=OTHER_LOGIN))
    ),
    at_entry(
        "S17",
        "worth nothing",
        Reason.SCOPE_REFUSED,
        login(subject_token=id_token(groups=["visitors"], scope="docs.read")),
    ),
    at_entry("S17", "names an actor", Reason.TOKEN_TYPE, login(subject_token=id_token(act={"sub": FRONT}))),
    at_entry(
        "S17",
        "a user called like a workload",
        Reason.DELEGATION_NOT_ALLOWED,
        login(subject_token=id_token(sub="SPIFFE://x")),
    ),
    at_entry("S17", "expired within the leeway", Reason.TOKEN_EXPIRED, login(subject_token=id_token(exp=NOW))),
    at_entry("S17", "an access token beside", Reason.TOKEN_TYPE, login(subject_token=id_token(typ="Bearer"))),
    at_entry("S17", "no group list", Reason.MALFORMED_TOKEN, login(subject_token=id_token(groups={"staff": True}))),
    at_entry("S17", "acr of another type", Reason.MALFORMED_TOKEN, login(subject_token=id_token(acr=1))),
    at_entry("S17", "auth_time of another type", Reason.MALFORMED_TOKEN, login(subject_token=id_token(auth_time=True))),
    at_entry("S17", "auth_time as text", Reason.MALFORMED_TOKEN, login(subject_token=id_token(auth_time="0"))),
    Attack("S17", "a workload's own token", exchange(subject_token=own(sub=PLANNER, act=ABSENT)), Reason.NOT_AN_ENTRY),
)


def forged(mesh: Mesh) -> str:
    """Sign by another key, under the kid of ours."""
    return replace(SigningKey.generate(), kid=mesh.ring.active.kid).sign(mesh.own_claims())


async def reason_of(mesh: Mesh, form: Mapping[str, object], client: SpiffeId = WRITER) -> Reason | None:
    """Return the reason why the request is refused; None if it is not."""
    try:
        await mesh.ask(form, client)
    except SidecarError as error:
        return error.reason
    return None


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.rule} {attack.what}")
async def test_an_attack_is_refused_and_its_lawful_twin_served(attack: Attack) -> None:
    mesh = Mesh()
    with pytest.raises(SidecarError) as refused:
        await mesh.ask(attack.form(mesh), attack.client)
    assert refused.value.reason is attack.reason
    assert await mesh.ask(attack.twin(mesh), attack.twin_client or WRITER)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"requested_token_type": ""}, id="empty parameters are absent ones"),
        pytest.param({"requested_token_type": ABSENT}, id="no requested type"),
        pytest.param({"unknown": "x"}, id="unknown parameters are ignored"),
        pytest.param({"subject_token_type": TOKEN_TYPE_JWT}, id="a subject token of type jwt"),
        pytest.param({"audience": "", "resource": CRM_URL}, id="a target named by its URL"),
        pytest.param({"audience": CRM, "resource": CRM}, id="a target named twice alike"),
        pytest.param({"scope": "crm.read crm.write unheard.of"}, id="more scopes than there are"),
        pytest.param({"scope": ""}, id="no scope"),
    ],
)
async def test_real_clients_are_understood(changes: dict[str, object]) -> None:
    mesh = Mesh()
    answer = await mesh.ask(mesh.exchange_form(WRITER, **changes))
    assert answer["scope"] == "crm.read"


async def test_the_issued_token_says_who_acts_for_whom_where_and_on_what_it_rests() -> None:
    mesh = Mesh()
    assert await mesh.claims_for(mesh.exchange_form(scope="crm.read docs.read")) == {
        "iss": ISSUER,
        "sub": "alice",
        "aud": CRM,
        "scope": "crm.read",
        "client_id": WRITER,
        "iat": NOW,
        "exp": NOW + 290,
        "jti": "new-jti-1",
        "parent_jti": "jti-2",
        "ancestor_jtis": ["jti-1"],
        "txn": "txn-1",
        "act": {"sub": WRITER, "act": {"sub": PLANNER, "act": {"sub": FRONT}}},
        "may_act": {"sub": CRM},
        "sub_id": {"format": "iss_sub", "iss": LOGIN, "sub": "alice"},
        "auth_time": NOW - 60,
        "acr": "1",
    }


@pytest.mark.parametrize(
    ("act_iss", "named", "reason"),
    [
        (None, "https://ns.example", Reason.ACT_MALFORMED),
        ("https://other.example", "https://ns.example", Reason.ACT_MALFORMED),
        ("https://ns.example", "https://ns.example", None),
        ("https://ns.example", ISSUER, None),
        (None, ISSUER, None),
    ],
)
async def test_an_actor_of_our_own_token_has_a_namespace_that_we_write(
    act_iss: str | None, named: str, reason: Reason | None
) -> None:
    mesh = Mesh(policy=small_policy(act_iss=act_iss))
    form = mesh.exchange_form(subject_token=mesh.own(act={"sub": PLANNER, "iss": named}))
    if reason is None:
        assert await mesh.ask(form)
        return
    with pytest.raises(SidecarError) as refused:
        await mesh.ask(form)
    assert refused.value.reason is reason


async def test_prior_actors_are_kept_to_the_letter() -> None:
    mesh = Mesh()
    legacy = {"sub": "legacy", "iss": "https://old.example", "exp": 1}
    act = {"sub": PLANNER, "iss": ISSUER, "extra": [1, {"a": None}], "act": legacy}
    claims = await mesh.claims_for(mesh.exchange_form(subject_token=mesh.own(act=act)))
    assert claims["act"] == {"sub": WRITER, "act": act}


async def test_the_first_token_of_a_chain_names_the_login_and_a_new_transaction() -> None:
    mesh = Mesh()
    claims = await mesh.claims_for(mesh.login_form(), FRONT)
    assert claims == {
        "iss": ISSUER,
        "sub": "alice",
        "aud": PLANNER,
        "scope": "crm.read docs.read",
        "client_id": FRONT,
        "iat": NOW,
        "exp": NOW + 300,
        "jti": "new-jti-1",
        "txn": "new-txn-1",
        "act": {"sub": FRONT},
        "may_act": {"sub": PLANNER},
        "sub_id": {"format": "iss_sub", "iss": LOGIN, "sub": "alice"},
        "auth_time": NOW - 60,
        "acr": "1",
    }


async def test_a_login_token_with_a_jti_is_the_parent_and_its_own_txn_is_not_taken() -> None:
    mesh = Mesh()
    claims = await mesh.claims_for(mesh.login_form(subject_token=mesh.login(jti="login-1", txn="theirs")), FRONT)
    assert (claims["parent_jti"], claims["txn"]) == ("login-1", "new-txn-1")


async def test_a_three_hop_chain_grows_by_one_actor_a_hop_under_one_transaction() -> None:
    mesh = Mesh()
    first = await mesh.ask(mesh.login_form(), FRONT)
    second = await mesh.ask(
        mesh.exchange_form(PLANNER, subject_token=first["access_token"], audience=WRITER, scope=ABSENT), PLANNER
    )
    third = await mesh.claims_for(mesh.exchange_form(subject_token=second["access_token"]))
    assert third["act"] == {"sub": WRITER, "act": {"sub": PLANNER, "act": {"sub": FRONT}}}
    assert (third["txn"], third["parent_jti"], third["jti"]) == ("new-txn-1", "new-jti-2", "new-jti-3")
    assert third["ancestor_jtis"] == ["new-jti-1"]
    assert (third["sub"], third["scope"]) == ("alice", "crm.read")


async def test_a_token_names_every_token_that_it_rests_on_or_is_not_issued() -> None:
    mesh = Mesh()
    most = [f"jti-{number}" for number in range(16)]
    lawful = mesh.own(parent_jti="p", ancestor_jtis=most[1:])
    assert (await mesh.claims_for(mesh.exchange_form(subject_token=lawful)))["ancestor_jtis"] == [*most[1:], "p"]
    for ancestors, reason in (
        (most, Reason.ACT_TOO_DEEP),
        ([*most, "one more"], Reason.MALFORMED_TOKEN),
        ("jti-1", Reason.MALFORMED_TOKEN),
        (["a\nb"], Reason.MALFORMED_TOKEN),
    ):
        with pytest.raises(Denied) as refused:
            await mesh.ask(mesh.exchange_form(subject_token=mesh.own(parent_jti="p", ancestor_jtis=ancestors)))
        assert refused.value.reason is reason


async def test_two_user_issuers_never_share_a_subject() -> None:
    issuers = {
        LOGIN: login_issuer(subject_prefix="acme|"),
        OTHER_LOGIN: login_issuer(OTHER_LOGIN, subject_prefix="partner|"),
    }
    entry = EntryWorkload(workload=FRONT, client_ids=dict.fromkeys(issuers, "front-app"))
    everybody = frozenset({SubjectMatch(ANYONE, ANYONE)})
    rule = Rule(actor=FRONT, subjects=everybody, audience=PLANNER, scopes=scopes("docs.read"))
    mesh = Mesh(policy=small_policy(rules=(rule,), entries={FRONT: entry}, login_issuers=issuers))
    seen = [await mesh.claims_for(mesh.login_form(subject_token=mesh.login(iss=iss)), FRONT) for iss in issuers]
    assert [claims["sub"] for claims in seen] == ["acme|alice", "partner|alice"]
    assert [claims["sub_id"] for claims in seen] == [
        {"format": "iss_sub", "iss": iss, "sub": "alice"} for iss in issuers
    ]


async def test_access_tokens_are_taken_from_an_issuer_whose_logins_give_them() -> None:
    issuer = login_issuer(trusted=trusted(LOGIN, "oidc-access-token"), kind=LoginKind.ACCESS_TOKEN)
    mesh = Mesh(policy=small_policy(login_issuers={LOGIN: issuer}))
    token = mesh.login(aud="account", azp="front-app")
    form = mesh.login_form(subject_token=token, subject_token_type=TOKEN_TYPE_ACCESS_TOKEN)
    assert (await mesh.claims_for(form, FRONT))["sub"] == "alice"


@pytest.mark.parametrize(
    ("says", "login_s", "life_s"),
    [
        pytest.param({}, 36_000, 300, id="five minutes by default"),
        pytest.param({}, 100, 100, id="never beyond the login"),
        pytest.param({"first_token_life_s": 3600}, 600, 600, id="nor where the entry allows longer ones"),
        pytest.param({"delegation_life_s": 60}, 600, 60, id="a low ceiling"),
        pytest.param({"delegation_life_s": 7200}, 100, 300, id="a ceiling alone lets it outlive the login only"),
        pytest.param({"delegation_life_s": 7200, "first_token_life_s": 900}, 100, 900, id="as long as the entry says"),
        pytest.param({"delegation_life_s": 7200, "long_runs": {PLANNER: 7200}}, 100, 7200, id="a long run"),
        pytest.param({"delegation_life_s": 7200, "long_runs": {CRM: 7200}}, 100, 300, id="a long run elsewhere"),
    ],
)
async def test_the_first_token_lives_as_long_as_the_entry_says(says: dict[str, Any], login_s: int, life_s: int) -> None:
    entry = EntryWorkload(workload=FRONT, client_ids={LOGIN: "front-app"}, **says)
    mesh = Mesh(policy=small_policy(entries={FRONT: entry}))
    form = mesh.login_form(subject_token=mesh.login(exp=NOW + login_s))
    assert (await mesh.claims_for(form, FRONT))["exp"] == NOW + life_s
    assert (await mesh.ask(form, FRONT))["expires_in"] == life_s


@pytest.mark.parametrize(
    ("rest_s", "expires_in"),
    [pytest.param(290, 290, id="the subject token ends first"), pytest.param(3000, 300, id="the policy does")],
)
async def test_a_later_token_ends_with_its_subject_token_or_the_policy(rest_s: int, expires_in: int) -> None:
    mesh = Mesh()
    answer = await mesh.ask(mesh.exchange_form(subject_token=mesh.own(exp=NOW + rest_s)))
    assert answer["expires_in"] == expires_in


async def test_the_answer_tells_the_truth_and_has_no_refresh_token() -> None:
    mesh = Mesh()
    answer = await mesh.ask(mesh.exchange_form(requested_token_type=TOKEN_TYPE_JWT))
    assert answer.keys() == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    assert (answer["issued_token_type"], answer["token_type"]) == (TOKEN_TYPE_JWT, "Bearer")


async def test_an_autonomous_workload_gets_a_token_that_names_no_user_and_no_actor() -> None:
    mesh = Mesh()
    assert await mesh.claims_for(itself()(mesh), PLANNER) == {
        "iss": ISSUER,
        "sub": PLANNER,
        "aud": CRM,
        "scope": "crm.read",
        "client_id": PLANNER,
        "iat": NOW,
        "exp": NOW + 300,
        "jti": "new-jti-1",
        "txn": "new-txn-1",
    }
    answer = await mesh.ask(itself()(mesh), PLANNER)
    assert "issued_token_type" not in answer


async def test_an_actor_of_a_federated_domain_is_served_where_a_rule_names_it() -> None:
    rule = Rule(actor=PARTNER, subjects=frozenset({ALL_USERS}), audience=CRM, scopes=scopes("crm.read"))
    mesh = Mesh(policy=small_policy(rules=(*small_policy().rules, rule)))
    actor_token = mesh.partner.mint(mesh.partner.claims(sub=PARTNER))
    subject_token = mesh.own(aud=PARTNER, may_act={"sub": PARTNER})
    form = mesh.exchange_form(actor_token=actor_token, subject_token=subject_token)
    assert (await mesh.claims_for(form, PARTNER))["client_id"] == PARTNER


async def test_a_subject_token_signed_by_a_retired_key_is_still_ours() -> None:
    old, new = SigningKey.generate(), SigningKey.generate("EdDSA")
    mesh = Mesh(ring=KeyRing(old))
    form = mesh.exchange_form()
    mesh.service.keys = KeyRing(new, retired=(old,))
    assert await mesh.ask(form)
    mesh.service.keys = KeyRing(new)
    with pytest.raises(Denied) as refused:
        await mesh.ask(form)
    assert refused.value.reason is Reason.UNKNOWN_KEY


KEPT_S = 420 + ANNOUNCE_S + LATE_S  # a token's life, two clocks' minutes, and a replica that saw the next key later


@pytest.mark.parametrize(("late_s", "found"), [(0, None), (KEPT_S - 1, None), (KEPT_S, Reason.UNKNOWN_KEY)])
async def test_a_key_is_ours_for_as_long_as_a_token_of_it_may_live_and_clocks_may_differ(
    late_s: int, found: Reason | None
) -> None:
    old, new = SigningKey.generate(), SigningKey.generate()
    mesh = Mesh(ring=KeyRing(old))
    mesh.service.keys = KeySchedule((TimedKey(NOW - 5000, old), TimedKey(NOW, new)))
    mesh.now += late_s
    token = mesh.own(iat=mesh.now - 10, exp=mesh.now + 200)
    form = mesh.exchange_form(subject_token=token, actor_token=mesh.svid(WRITER, iat=mesh.now, exp=mesh.now + 200))
    assert await reason_of(mesh, form) is found


async def test_the_keys_of_an_unknown_issuer_are_never_asked_for() -> None:
    mesh = Mesh()
    assert await mesh.ask(mesh.login_form(), FRONT)
    assert mesh.login_keys.waited == []  # a known key is not awaited
    mesh.login_keys.late = True
    for form, client in [(login(PLANNER), PLANNER), (login(subject_token=id_token(iss=OTHER_LOGIN)), FRONT)]:
        with pytest.raises(Denied):
            await mesh.ask(form(mesh), client)
    assert mesh.login_keys.waited == []
    assert await mesh.ask(mesh.login_form(), FRONT)
    assert mesh.login_keys.waited == [(LOGIN, "l1")]


async def test_a_login_token_of_the_wrong_type_leads_to_no_fetch() -> None:
    mesh = Mesh()
    mesh.login_keys.late = True
    token = mesh.logins.mint(mesh.login_claims(), mesh.logins.header(typ="logout+jwt"))
    with pytest.raises(Denied) as refused:
        await mesh.ask(mesh.login_form(subject_token=token), FRONT)
    assert (refused.value.reason, mesh.login_keys.waited) == (Reason.TOKEN_TYPE, [])


async def test_a_login_token_by_another_key_is_refused() -> None:
    mesh = Mesh()
    stranger = TokenMint(LOGIN, algorithm="RS256", kid="l1", key=3)
    token = stranger.mint(mesh.login_claims(), stranger.header(typ="JWT"))
    with pytest.raises(Denied) as refused:
        await mesh.ask(mesh.login_form(subject_token=token), FRONT)
    assert refused.value.reason is Reason.BAD_SIGNATURE


async def test_nothing_is_issued_that_could_not_be_recorded() -> None:
    mesh = Mesh()
    mesh.log.healthy = False
    with pytest.raises(SidecarError) as refused:
        await mesh.ask(mesh.exchange_form())
    assert (refused.value.reason, mesh.log.events) == (Reason.AUDIT_UNAVAILABLE, [])
    mesh.log.healthy = True
    assert await mesh.ask(mesh.exchange_form())


async def test_a_token_too_large_for_its_consumers_is_not_issued() -> None:
    mesh = Mesh()

    def noted(size: int) -> str:
        return mesh.own(act={"sub": PLANNER, "note": ["x" * 2000] * 5, "more": "x" * size})

    largest = next(size for size in range(2000, 0, -1) if len(noted(size)) <= MAX_TOKEN_BYTES)
    with pytest.raises(Denied) as refused:
        await mesh.ask(mesh.exchange_form(subject_token=noted(largest)))
    assert refused.value.reason is Reason.TOKEN_TOO_LARGE
    assert await mesh.ask(mesh.exchange_form(subject_token=noted(largest - 100)))


async def test_an_issued_token_has_the_most_bytes_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh()
    size = len(str((await mesh.ask(mesh.exchange_form()))["access_token"]))
    monkeypatch.setattr(service, "MAX_TOKEN_BYTES", size)
    assert await mesh.ask(mesh.exchange_form())
    monkeypatch.setattr(service, "MAX_TOKEN_BYTES", size - 1)
    with pytest.raises(Denied) as refused:
        await mesh.ask(mesh.exchange_form())
    assert refused.value.reason is Reason.TOKEN_TOO_LARGE


@pytest.mark.parametrize("may_act", [{"sub": WRITER}, {"sub": WRITER, "client_id": WRITER}], ids=["sub", "both names"])
async def test_the_actor_that_may_act_names_may_act(may_act: dict[str, object]) -> None:
    mesh = Mesh()
    assert await mesh.ask(mesh.exchange_form(subject_token=mesh.own(may_act=may_act)))


async def test_one_token_is_exchanged_so_often_by_one_client_and_others_still_are() -> None:
    mesh = Mesh(rate=RateSettings(burst=2, per_s=1.0))

    once = partial(reason_of, mesh)
    same, later = mesh.exchange_form(), mesh.exchange_form(subject_token=mesh.own(exp=NOW + 200))
    assert [await once(form) for form in (same, later, same)] == [None, None, Reason.OVERLOADED]  # one jti
    assert await once(mesh.exchange_form(subject_token=mesh.own(jti="jti-3"))) is None
    by_login = mesh.login_form()  # without a jti: the whole token counts
    assert [await once(by_login, FRONT) for _ in range(3)] == [None, None, Reason.OVERLOADED]
    assert await once(mesh.login_form(subject_token=mesh.login(sub="bob")), FRONT) is None
    assert [await once(itself()(mesh), PLANNER) for _ in range(3)] == [None, None, Reason.OVERLOADED]
    mesh.now += 1
    assert await once(same) is None


async def test_a_token_of_one_jti_at_two_issuers_or_clients_is_two() -> None:
    mesh = Mesh(rate=RateSettings(burst=1))
    to_front = mesh.own(aud=FRONT, act={"sub": WRITER}, may_act=ABSENT)
    for form, client in (
        (mesh.exchange_form(), WRITER),
        (mesh.login_form(subject_token=mesh.login(jti="jti-2")), FRONT),
        (mesh.exchange_form(FRONT, subject_token=to_front, audience=PLANNER), FRONT),
        (
            mesh.exchange_form(
                PLANNER, subject_token=mesh.own(aud=PLANNER, act={"sub": FRONT}, may_act=ABSENT), audience=WRITER
            ),
            PLANNER,
        ),
    ):
        assert await mesh.ask(form, client)


async def test_a_token_that_does_not_verify_takes_nothing_from_one_that_does() -> None:
    mesh = Mesh(rate=RateSettings(burst=1))
    for _ in range(3):
        with pytest.raises(Denied):
            await mesh.ask(mesh.exchange_form(subject_token=forged(mesh)))
    assert await mesh.ask(mesh.exchange_form())


async def test_a_policy_that_was_replaced_counts_from_the_next_request_on() -> None:
    mesh = Mesh()
    assert await mesh.ask(mesh.exchange_form())
    mesh.service.policy = small_policy(rules=())
    with pytest.raises(Denied) as refused:
        await mesh.ask(mesh.exchange_form())
    assert refused.value.reason is Reason.TARGET_UNKNOWN


WHILE_A_KEY_IS_FETCHED: dict[str, tuple[StsPolicy, Reason | None]] = {
    "nothing of it changes": (small_policy(), None),
    "its rule goes": (small_policy(rules=()), Reason.TARGET_UNKNOWN),
    "its entry goes": (small_policy(entries={}), Reason.NOT_AN_ENTRY),
    "its login issuer goes": (small_policy(rules=(), entries={}, login_issuers={}), Reason.WRONG_ISSUER),
}


@pytest.mark.parametrize(("policy", "reason"), WHILE_A_KEY_IS_FETCHED.values(), ids=list(WHILE_A_KEY_IS_FETCHED.keys()))
async def test_a_policy_that_is_replaced_while_a_key_is_fetched_counts(
    policy: StsPolicy, reason: Reason | None
) -> None:
    mesh = Mesh()
    mesh.login_keys.late = True
    mesh.login_keys.meanwhile = lambda: setattr(mesh.service, "policy", policy)
    if reason is None:
        assert await mesh.ask(mesh.login_form(), FRONT)
        return
    with pytest.raises(Denied) as refused:
        await mesh.ask(mesh.login_form(), FRONT)
    assert refused.value.reason is reason


async def test_a_client_that_is_distrusted_while_a_key_is_fetched_gets_nothing() -> None:
    def distrusted() -> None:
        raise Denied(Reason.CLIENT_NOT_AUTHENTICATED)

    mesh = Mesh()
    mesh.login_keys.late = True
    assert await mesh.ask(mesh.login_form(), FRONT)
    with pytest.raises(Denied) as refused:
        await mesh.ask(mesh.login_form(), FRONT, distrusted)
    assert refused.value.reason is Reason.CLIENT_NOT_AUTHENTICATED


async def test_a_stranger_with_a_valid_svid_gets_nothing() -> None:
    mesh = Mesh()
    for form in (mesh.exchange_form(STRANGER), mesh.login_form(STRANGER), itself()(mesh)):
        with pytest.raises(Denied):
            await mesh.ask(form, STRANGER)
    assert mesh.log.events == []


def test_random_names_are_long_and_new() -> None:
    names = [fresh_names() for _ in range(100)]
    found = {name for pair in names for name in (pair.jti, pair.txn)}
    assert len(found) == 200
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in found)  # base64url may begin with a hyphen, as options do


HEAD: Final = Head(run="7f3a", seq=41, hash="ab" * 32)


def test_a_head_is_signed_for_the_client_that_asks_and_recorded() -> None:
    mesh = Mesh()
    checkpoint = mesh.service.countersign(head_form(HEAD), FORM, client=WRITER)
    assert (checkpoint.workload, checkpoint.issuer, checkpoint.at, checkpoint.head) == (WRITER, ISSUER, NOW, HEAD)
    assert mesh.log.events == [
        ("records.countersigned", {"peer": WRITER, "checkpoint": f"run=7f3a {checkpoint.text()}"})
    ]


def test_no_head_is_signed_that_cannot_be_recorded() -> None:
    mesh = Mesh()
    mesh.log.healthy = False
    with pytest.raises(SidecarError) as refused:
        mesh.service.countersign(head_form(HEAD), FORM, client=WRITER)
    assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
    assert mesh.log.events == []


def test_one_client_does_not_have_heads_signed_without_limit() -> None:
    mesh = Mesh(rate=RateSettings(burst=2, per_s=1.0))
    service = mesh.service
    for _ in range(2):
        service.countersign(head_form(HEAD), FORM, client=WRITER)
    with pytest.raises(SidecarError) as refused:
        service.countersign(head_form(HEAD), FORM, client=WRITER)
    assert refused.value.reason is Reason.OVERLOADED
    service.countersign(head_form(HEAD), FORM, client=PLANNER)


async def test_the_service_signs_its_own_records_once_it_knows_its_name() -> None:
    mesh = Mesh()
    service = mesh.service
    with pytest.raises(SidecarError) as refused:
        await service.countersign_own(HEAD)
    assert refused.value.reason is Reason.NOT_READY
    mesh.log.workload = "spiffe://acme.example/sts"
    checkpoint = await service.countersign_own(HEAD)
    assert (checkpoint.workload, checkpoint.head) == ("spiffe://acme.example/sts", HEAD)


async def test_a_client_is_limited_before_anything_that_it_sends_is_read() -> None:
    mesh = Mesh()
    mesh.service.actor_rate = ExchangeRate(RateSettings(burst=2), monotonic=lambda: mesh.now, too_many="too many")
    assert await reason_of(mesh, {"grant_type": "rubbish"}) is Reason.GRANT_NOT_SUPPORTED
    assert await mesh.ask(mesh.exchange_form())
    for form in ({"grant_type": "rubbish"}, mesh.exchange_form()):
        assert await reason_of(mesh, form) is Reason.OVERLOADED
    assert await mesh.ask(mesh.login_form(), FRONT)  # another client
    mesh.now += 1
    assert await mesh.ask(mesh.exchange_form())


CERTIFICATE: Final = ClientCertificate("ab" * 32, not_after=NOW + 120)
THUMBPRINT: Final = CERTIFICATE.thumbprint


def binding(**changes: Any) -> StsPolicy:
    """Return the policy with the CRM's tokens bound."""
    policy = small_policy(**changes)
    return replace(policy, targets=tuple(replace(one, bound=one.workload == CRM) for one in policy.targets))


async def bound_claims(
    mesh: Mesh,
    form: Mapping[str, object],
    client: SpiffeId = WRITER,
    certificate: ClientCertificate | None = CERTIFICATE,
) -> Mapping[str, object]:
    record = ExchangeRecord(mesh.log, ISSUER)
    answer = await mesh.service.token(encoded(form), FORM, client=client, record=record, certificate=certificate)
    claims = parse_bearer(str(answer["access_token"])).claims
    assert answer["expires_in"] == int(str(claims["exp"])) - NOW
    return claims


@pytest.mark.parametrize("audience", [CRM, CRM_URL])
async def test_a_token_for_a_bound_target_is_bound_to_its_clients_certificate_and_ends_with_it(audience: str) -> None:
    claims = await bound_claims(Mesh(policy=binding()), Mesh().exchange_form(audience=audience))
    assert claims["cnf"] == {"x5t#S256": THUMBPRINT}
    assert claims["exp"] == NOW + 120
    longer = await bound_claims(
        Mesh(policy=binding()), Mesh().exchange_form(), certificate=ClientCertificate("cd" * 32, not_after=NOW + 9999)
    )
    assert longer["exp"] == NOW + 290


async def test_a_workloads_own_token_is_bound_too_and_one_for_another_target_is_not() -> None:
    own = {"grant_type": CLIENT_CREDENTIALS, "audience": CRM, "scope": "crm.read"}
    assert (await bound_claims(Mesh(policy=binding()), own, PLANNER))["cnf"] == {"x5t#S256": THUMBPRINT}
    unbound = await bound_claims(Mesh(policy=binding()), Mesh().login_form(), FRONT)
    assert "cnf" not in unbound
    assert unbound["exp"] == NOW + 300
    assert "cnf" not in await bound_claims(Mesh(), Mesh().exchange_form())


async def test_without_a_certificate_nothing_is_issued_for_a_bound_target() -> None:
    mesh = Mesh(policy=binding())
    assert await reason_of(mesh, mesh.exchange_form()) is Reason.CLIENT_NOT_AUTHENTICATED
    own = {"grant_type": CLIENT_CREDENTIALS, "audience": CRM, "scope": "crm.read"}
    assert await reason_of(mesh, own, PLANNER) is Reason.CLIENT_NOT_AUTHENTICATED


async def test_a_bound_token_is_exchanged_by_its_audience_and_its_binding_ends_there() -> None:
    bound_to_planner = Mesh().own(cnf={"x5t#S256": "x" * 43})
    claims = await bound_claims(Mesh(), Mesh().exchange_form(subject_token=bound_to_planner))
    assert "cnf" not in claims
    claims = await bound_claims(Mesh(policy=binding()), Mesh().exchange_form(subject_token=bound_to_planner))
    assert claims["cnf"] == {"x5t#S256": THUMBPRINT}


async def test_a_login_that_is_bound_to_somebody_proves_nothing_here() -> None:
    mesh = Mesh()
    login = mesh.login(cnf={"x5t#S256": THUMBPRINT})
    assert await reason_of(mesh, mesh.login_form(subject_token=login), FRONT) is Reason.CNF_MISMATCH
