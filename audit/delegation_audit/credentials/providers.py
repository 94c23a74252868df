"""Readers of identity providers' exports: Keycloak realms, Entra's app registrations, Google Cloud's key files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from delegation_audit.credentials.fields import Exposure, Field, Read
from delegation_audit.credentials.forms import date_of
from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.tree import Node

_BUILT_IN: Final = frozenset(
    ("account", "account-console", "admin-cli", "broker", "realm-management", "security-admin-console")
)
_CREATED: Final = "client.secret.creation.time"
_ROTATED: Final = "client.secret.rotated"
# Names of secrets among the settings of Keycloak's components and identity providers.
_OTHERS: Final = {
    "clientSecret": Kind.OAUTH_CLIENT_SECRET,
    "bindCredential": Kind.PASSWORD,
    "privateKey": Kind.PRIVATE_KEY,
    "secret": Kind.API_KEY,
    "hmacSecret": Kind.API_KEY,
    "keyPassword": Kind.PASSWORD,
    "keystorePassword": Kind.PASSWORD,
}


def keycloak_realms(documents: list[Node]) -> list[Node]:
    """Return the realms in an export of one or several; wrap the export of a single client in a realm."""
    found = [one for document in documents for one in (document, *document.items)]
    realms = [one for one in found if one.text_of("realm") and one.get("clients") is not None]
    clients = [one for one in found if one.text_of("clientId") and one.get("protocol") is not None]
    return realms + [Node(one.line, members=[("clients", Node(one.line, items=[one]))]) for one in clients]


def entra_applications(documents: list[Node]) -> list[Node]:
    """Return the app registrations and service principals in an export from Graph or ``az ad app list``."""
    found = [one for document in documents for one in (document, *document.items, *_value(document))]
    return [one for one in found if one.text_of("appId") and _credential_lists(one)]


def _value(document: Node) -> list[Node]:
    node = document.get("value")
    return [] if node is None else node.items


def _credential_lists(one: Node) -> bool:
    return one.get("passwordCredentials") is not None or one.get("keyCredentials") is not None


def read_keycloak(realms: list[Node]) -> Read:
    """Read realms: confidential clients, direct access grants, secrets of components and identity providers."""
    return Read(tuple(field for realm in realms for field in _realm(realm)))


def _realm(realm: Node) -> Iterator[Field]:
    name = realm.text_of("realm")
    prefix = f"realm {name}, " if name else ""
    clients = realm.get("clients")
    for client in [] if clients is None else clients.items:
        yield from _client(client, prefix)
    smtp = realm.get("smtpServer", "password")
    if smtp is not None and smtp.text:
        template = Field(
            name="password", value=smtp.text, line=smtp.line, object=f"{prefix}smtpServer", owner="Keycloak"
        )
        yield replace(template, kind=Kind.PASSWORD, exposure=Exposure.PROVIDER)
    for section in ("identityProviders", "components", "userFederationProviders"):
        node = realm.get(section)
        if node is not None:
            yield from _others(node, f"{prefix}{section}")


def _client(client: Node, prefix: str) -> Iterator[Field]:
    client_id = client.text_of("clientId") or "unnamed"
    if client_id in _BUILT_IN or (client.text_of("enabled") or "").lower() == "false":
        return
    template = Field(
        name="secret",
        value="",
        line=client.line,
        object=f"{prefix}client {client_id}",
        owner=f"client {client_id}",
        exposure=Exposure.PROVIDER,
    )
    if client.is_true("directAccessGrantsEnabled"):
        yield replace(template, kind=Kind.PASSWORD_GRANT, identity=("keycloak grant", prefix, client_id))
    method = client.text_of("clientAuthenticatorType") or "client-secret"
    confidential = not client.is_true("publicClient") and not client.is_true("bearerOnly")
    if not confidential or method not in ("client-secret", "client-secret-jwt"):
        return
    secret = client.get("secret")
    grants = (
        ("service accounts", client.is_true("serviceAccountsEnabled")),
        ("logins", client.is_true("standardFlowEnabled")),
    )
    facts = (("used for", " and ".join(word for word, enabled in grants if enabled) or "nothing"),)
    template = replace(template, created=_read_created(client), facts=facts, kind=Kind.OAUTH_CLIENT_SECRET)
    if secret is not None and secret.text and set(secret.text) != {"*"}:
        yield replace(template, value=secret.text, line=secret.line)
    elif secret is not None or client.is_true("serviceAccountsEnabled"):  # the export masks or omits the secret
        yield replace(template, identity=("keycloak", prefix, client_id))
    rotated = client.text_of("attributes", _ROTATED)
    if rotated and set(rotated) != {"*"}:
        yield replace(template, name=_ROTATED, value=rotated)


def _read_created(client: Node) -> str | None:
    seconds = client.text_of("attributes", _CREATED) or ""
    return date_of(int(seconds)) if seconds.isascii() and seconds.isdigit() and len(seconds) <= 11 else None


def _others(section: Node, label: str) -> Iterator[Field]:
    """Yield the secrets of components and identity providers; a value may be a list with one item."""
    stack, steps = [section], 100_000
    while stack and steps:
        steps -= 1
        node = stack.pop()
        for key, member in node.members:
            value = member.items[0] if len(member.items) == 1 else member
            if key in _OTHERS and value.text and set(value.text) != {"*"}:
                yield Field(
                    name=key,
                    value=value.text,
                    line=value.line,
                    object=f"{label}, {node.text_of('alias') or key}",
                    owner="Keycloak",
                    exposure=Exposure.PROVIDER,
                    kind=_OTHERS[key],
                )
            stack.append(member)
        stack += node.items


def read_entra(applications: list[Node], *, today: str) -> Read:
    """Read app registrations, without expired credentials. Application and key id identify a secret without value."""
    return Read(tuple(field for one in applications for field in _application(one, today)))


def _application(one: Node, today: str) -> Iterator[Field]:
    name, app_id = one.text_of("displayName") or one.text_of("name") or "unnamed", one.text_of("appId") or ""
    for section, kind in (
        ("passwordCredentials", Kind.OAUTH_CLIENT_SECRET),
        ("keyCredentials", Kind.CLIENT_CERTIFICATE),
    ):
        listed = one.get(section)
        for credential in [] if listed is None else listed.items:
            expires = (credential.text_of("endDateTime") or credential.text_of("endDate") or "")[:10] or None
            if expires is not None and expires < today:
                continue  # expired
            key_id = credential.text_of("keyId") or str(credential.line)
            hint = credential.text_of("hint") or ""  # the first characters of the secret
            field = Field(
                name=section,
                value="",
                line=credential.line,
                object=f"application {name}, {section} {key_id}",
                owner=f"application {name}",
                exposure=Exposure.PROVIDER,
                kind=kind,
                created=(credential.text_of("startDateTime") or credential.text_of("startDate") or "")[:10] or None,
                expires=expires,
                hidden=(hint,) if hint else (),
            )
            key = credential.get("secretText") or credential.get("value")
            if key is not None and key.text and key.text not in ("null", "~"):
                yield replace(field, value=key.text, line=key.line)
            else:
                key = credential.get("keyId") or credential
                yield replace(field, line=key.line, identity=("entra", app_id, key_id))


def google_keys(documents: list[Node]) -> list[Node]:
    """Return the documents that are key files of Google Cloud service accounts."""
    return [one for one in documents if one.text_of("type") == "service_account" and one.text_of("private_key")]


def read_google(keys: list[Node]) -> Read:
    """Read key files. The owner is the service account."""
    return Read(tuple(_google_key(one) for one in keys))


def _google_key(one: Node) -> Field:
    account = one.text_of("client_email") or "unnamed"
    key = one.get("private_key") or one
    return Field(
        name="private_key",
        value=key.text or "",
        line=key.line,
        object="private_key",
        owner=f"service account {account}",
        exposure=Exposure.CONFIGURATION,
        kind=Kind.GCP_SERVICE_ACCOUNT_KEY,
    )
