from typing import Any

import pytest

from delegation_core.login_issuer import LoginKind
from delegation_core.profile import ActorForm
from delegation_core.profile_presets import PRESETS
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.profiles import kind_of, kind_problems, profile_of, profile_problems
from sidecar.config.sections import ProfileSection
from tests.config.test_issuers import issuer, login

ROW = {"sub": "crm", "spiffe_id": "spiffe://acme.example/tool/crm"}


def profile(**changes: Any) -> ProfileSection:
    return ProfileSection.model_validate({"preset": "sts", **changes})


def test_a_profile_is_its_preset_with_the_changes_that_are_written() -> None:
    assert profile_of("sts") is PRESETS["sts"]
    assert profile_of(profile()) == PRESETS["sts"]
    made = profile_of(
        profile(
            actor="table",
            typ=["Application/AT+JWT", None],
            algorithms=["ES256"],
            required_claims=["txn"],
            actor_table=[ROW],
            leeway_s=3,
        )
    )
    assert made.actor is ActorForm.TABLE
    assert made.typ == {"at+jwt", None}
    assert made.algorithms == {"ES256"}
    assert made.required_claims == {*PRESETS["sts"].required_claims, "txn"}
    assert made.actor_table == {(None, "crm"): SpiffeId("spiffe://acme.example/tool/crm")}
    assert made.leeway_s == 3


def test_one_actor_has_one_row() -> None:
    with pytest.raises(ValueError, match=r"^actor_table: one actor has two rows"):
        profile_of(profile(actor="table", actor_table=[ROW, ROW]))
    assert len(profile_of(profile(actor="table", actor_table=[ROW, {**ROW, "iss": "https://a"}])).actor_table) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"profile": "oidc-id-token"}, "actor"),
        ({"profile": {"preset": "sts", "actor": "table"}}, "maps no actor"),
        ({"profile": {"preset": "sts", "actor": "table", "actor_table": [ROW]}}, None),
        ({"profile": {"preset": "sts", "actor": "table", "actor_table": [ROW, ROW]}}, "two rows"),
    ],
)
def test_an_issuer_of_delegated_tokens_names_actors(changes: dict[str, Any], words: str | None) -> None:
    told = list(profile_problems(issuer(**changes), "issuers[0]"))
    assert len(told) == (words is not None)
    for one in told:
        assert (words or "") in one.wrong


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"profile": "oidc-id-token", "kind": None}, LoginKind.ID_TOKEN, ""),
        ({"profile": "oidc-id-token", "kind": "id_token"}, LoginKind.ID_TOKEN, ""),
        ({"profile": "oidc-id-token", "kind": "access_token"}, LoginKind.ACCESS_TOKEN, "is not the kind"),
        ({"profile": "keycloak", "kind": None}, None, "is missing"),
        ({"profile": "keycloak", "kind": "id_token"}, LoginKind.ID_TOKEN, ""),
    ],
)
def test_one_kind_of_login_counts_and_the_profile_agrees(
    changes: dict[str, Any], kind: LoginKind | None, words: str
) -> None:
    section = login(**changes)
    assert kind_of(section) is kind
    told = [one.wrong for one in kind_problems(section, "x")]
    assert [words in wrong for wrong in told] == [True] * bool(words)
