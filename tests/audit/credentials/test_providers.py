from __future__ import annotations

import json

import pytest

from delegation_audit.credentials.fields import Field
from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.providers import (
    entra_applications,
    google_keys,
    keycloak_realms,
    read_entra,
    read_google,
    read_keycloak,
)
from delegation_audit.credentials.tree import Node, read_documents
from tests.audit.credentials.drawn import KEY, PEM

TODAY = "2026-09-21"


def documents(value: object) -> list[Node]:
    return read_documents(json.dumps(value))


def keycloak(*clients: dict[str, object], **more: object) -> list[Field]:
    realms = keycloak_realms(documents({"realm": "agents", "clients": list(clients), **more}))
    return list(read_keycloak(realms).fields)


CONFIDENTIAL: dict[str, object] = {
    "clientId": "crm",
    "secret": KEY,
    "publicClient": False,
    "serviceAccountsEnabled": True,
}


def test_a_confidential_clients_secret_has_owner_and_age() -> None:
    (field,) = keycloak({**CONFIDENTIAL, "attributes": {"client.secret.creation.time": "1700000000"}})
    assert (field.kind, field.value, field.owner, field.created) == (
        Kind.OAUTH_CLIENT_SECRET,
        KEY,
        "client crm",
        "2023-11-14",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"publicClient": True},
        {"bearerOnly": True},
        {"enabled": False},
        {"clientAuthenticatorType": "client-jwt"},
        {"clientId": "realm-management"},
    ],
)
def test_a_client_without_a_secret_of_its_own_is_left_out(change: dict[str, object]) -> None:
    assert keycloak({**CONFIDENTIAL, **change}) == []


def test_a_masked_secret_is_known_by_its_client() -> None:
    (field,) = keycloak({**CONFIDENTIAL, "secret": "**********"})
    assert (field.kind, field.value, bool(field.identity)) == (Kind.OAUTH_CLIENT_SECRET, "", True)


def test_direct_access_grants_are_found_at_public_clients_too() -> None:
    client: dict[str, object] = {"clientId": "web", "publicClient": True, "directAccessGrantsEnabled": True}
    assert [field.kind for field in keycloak(client)] == [Kind.PASSWORD_GRANT]
    assert keycloak({**client, "directAccessGrantsEnabled": False}) == []
    assert keycloak({**client, "clientId": "admin-cli"}) == []


def test_secrets_of_components_and_brokered_providers_are_found() -> None:
    ldap = {"org.keycloak.storage.UserStorageProvider": [{"name": "ldap", "config": {"bindCredential": [KEY]}}]}
    broker = [
        {"alias": "entra", "config": {"clientSecret": "x" + KEY}},
        {"alias": "m", "config": {"clientSecret": "****"}},
    ]
    found = keycloak(components=ldap, identityProviders=broker)
    assert {(field.kind, field.value) for field in found} == {
        (Kind.PASSWORD, KEY),
        (Kind.OAUTH_CLIENT_SECRET, "x" + KEY),
    }


def test_one_clients_export_is_a_realm_of_it() -> None:
    realms = keycloak_realms(documents({**CONFIDENTIAL, "protocol": "openid-connect"}))
    assert [field.value for field in read_keycloak(realms).fields] == [KEY]


def entra(**credential: object) -> list[Field]:
    application = {"appId": "1", "displayName": "crm", "passwordCredentials": [{"keyId": "k", **credential}]}
    applications = entra_applications(documents({"value": [application]}))
    return list(read_entra(applications, today=TODAY).fields)


def test_a_registrations_secret_has_owner_age_and_end_and_its_hint_is_hidden() -> None:
    (field,) = entra(startDateTime="2025-01-02T00:00:00Z", endDateTime="2027-01-02T00:00:00Z", hint="a1B")
    assert (field.kind, field.owner, field.created, field.expires) == (
        Kind.OAUTH_CLIENT_SECRET,
        "application crm",
        "2025-01-02",
        "2027-01-02",
    )
    assert field.identity == ("entra", "1", "k")
    assert field.hidden == ("a1B",)


def test_a_registrations_secret_has_the_line_of_the_secret_or_of_its_id() -> None:
    credential = {"displayName": "ci", "endDateTime": None, "keyId": "k", "secretText": KEY}
    for shown, key in ((credential, "secretText"), ({**credential, "secretText": None}, "keyId")):
        text = json.dumps({"appId": "1", "passwordCredentials": [shown]}, indent=1)
        (field,) = read_entra(entra_applications(read_documents(text)), today=TODAY).fields
        assert text.split("\n")[field.line - 1].strip().startswith(f'"{key}"')


@pytest.mark.parametrize(("end", "count"), [("2026-09-20T00:00:00Z", 0), ("2026-09-21T00:00:00Z", 1), (None, 1)])
def test_a_secret_that_is_over_is_left_out(end: str | None, count: int) -> None:
    assert len(entra(endDateTime=end) if end else entra()) == count


def test_a_registered_certificate_is_a_credential_and_a_federated_one_is_none() -> None:
    application = {
        "appId": "1",
        "keyCredentials": [{"keyId": "k"}],
        "federatedIdentityCredentials": [{"name": "spire"}],
    }
    fields = read_entra(entra_applications(documents([application])), today=TODAY).fields
    assert [field.kind for field in fields] == [Kind.CLIENT_CERTIFICATE]


def test_a_google_key_belongs_to_its_service_account() -> None:
    keys = google_keys(documents({"type": "service_account", "private_key": PEM, "client_email": "a@b"}))
    (field,) = read_google(keys).fields
    assert (field.kind, field.owner) == (Kind.GCP_SERVICE_ACCOUNT_KEY, "service account a@b")
    assert google_keys(documents({"type": "authorized_user", "private_key": PEM})) == []


def test_other_documents_are_no_exports() -> None:
    other = documents({"clients": [], "appId": "1"})
    assert keycloak_realms(other) == []
    assert entra_applications(other) == []
