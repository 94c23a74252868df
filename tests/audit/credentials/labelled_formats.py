"""Files of the labelled set with credentials that only one format has."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import yaml

from tests.audit.credentials.labelled import NOW, File, Value, text

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def special(rng: random.Random) -> Iterator[tuple[File, list[Value]]]:
    """Yield files with key pairs, private keys, tokens of clusters, and exports of identity providers."""
    for _ in range(3):
        yield _aws_env(rng)
        yield _aws_secret(rng)
        yield _aws_file(rng)
        yield _service_account(rng)
        yield _private_key(rng)
        yield _tls_secret(rng)
        yield _cluster_token(rng)
        yield _registry(rng)
        yield _keycloak(rng)
        yield _entra(rng)
        yield _sealed(rng)
        yield _lock(rng)
        yield _certificates(rng)


def _aws(rng: random.Random) -> tuple[str, str]:
    return "AKIA" + text(rng, 16, _BASE32), text(rng, 39) + "x"


def _aws_values(key_id: str, key: str) -> list[Value]:
    return [Value("id", key_id, "aws-access-key", key_id), Value("key", key, "aws-access-key", key_id)]


def _aws_env(rng: random.Random) -> tuple[File, list[Value]]:
    key_id, key = _aws(rng)
    return (".env", f"AWS_REGION=eu-west-1\nAWS_ACCESS_KEY_ID={key_id}\nAWS_SECRET_ACCESS_KEY={key}\n"), _aws_values(
        key_id, key
    )


def _aws_file(rng: random.Random) -> tuple[File, list[Value]]:
    key_id, key = _aws(rng)
    return ("credentials", f"[agent]\naws_access_key_id = {key_id}\naws_secret_access_key = {key}\n"), _aws_values(
        key_id, key
    )


def _aws_secret(rng: random.Random) -> tuple[File, list[Value]]:
    key_id, key = _aws(rng)
    data = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": key}
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws"}, "data": encoded}
    return ("aws.yaml", yaml.safe_dump(document)), _aws_values(key_id, key)


def _pem(rng: random.Random, label: str = "PRIVATE KEY") -> str:
    body = base64.b64encode(rng.randbytes(1200)).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


def _private_key(rng: random.Random) -> tuple[File, list[Value]]:
    pem = _pem(rng, rng.choice(("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY")))
    return ("id_agent", pem), [Value("key", pem, "private-key", pem.strip())]


def _tls_secret(rng: random.Random) -> tuple[File, list[Value]]:
    pem = _pem(rng)
    data = {"tls.key": pem, "tls.crt": _pem(rng, "CERTIFICATE")}
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "t"},
        "type": "kubernetes.io/tls",
        "data": encoded,
    }
    return ("tls.yaml", yaml.safe_dump(document)), [Value("tls.key", pem, "private-key", pem.strip())]


def _service_account(rng: random.Random) -> tuple[File, list[Value]]:
    pem = _pem(rng)
    document = {
        "type": "service_account",
        "project_id": "agents-1",
        "private_key_id": text(rng, 40, "0123456789abcdef"),
        "private_key": pem,
        "client_email": "agent@agents-1.iam.gserviceaccount.com",
        "client_id": text(rng, 21, "123456789"),
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/agent",
    }
    return ("key.json", json.dumps(document, indent=2)), [Value("key", pem, "gcp-service-account-key", pem.strip())]


def _cluster_token(rng: random.Random) -> tuple[File, list[Value]]:
    metadata = {"name": "agent-token", "annotations": {"kubernetes.io/service-account.name": "agent"}}
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kubernetes.io/service-account-token",
    }
    token = text(rng, 200)
    filled = {
        **document,
        "metadata": {**metadata, "name": "filled"},
        "data": {"token": base64.b64encode(token.encode()).decode()},
    }
    values = [Value("token", "", "kubernetes-token", "agent-token"), Value("token", token, "kubernetes-token", token)]
    return ("token.yaml", yaml.safe_dump(document) + "---\n" + yaml.safe_dump(filled)), values


def _registry(rng: random.Random) -> tuple[File, list[Value]]:
    password = text(rng, 20)
    auth = base64.b64encode(f"puller:{password}".encode()).decode()
    inner = base64.b64encode(json.dumps({"auths": {"registry.acme.example": {"auth": auth}}}).encode()).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "pull"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": inner},
    }
    return ("pull.yaml", yaml.safe_dump(document)), [Value("auth", password, "basic-credentials", password)]


def _keycloak(rng: random.Random) -> tuple[File, list[Value]]:
    secret = text(rng, 32)
    clients: list[dict[str, object]] = [
        {
            "clientId": "planner",
            "secret": secret,
            "publicClient": False,
            "serviceAccountsEnabled": True,
            "directAccessGrantsEnabled": False,
            "protocol": "openid-connect",
            "attributes": {"client.secret.creation.time": str(NOW - 800 * 86400)},
        },
        {"clientId": "writer", "secret": "**********", "serviceAccountsEnabled": True, "publicClient": False},
        {"clientId": "web", "publicClient": True, "directAccessGrantsEnabled": True},
        {"clientId": "app", "publicClient": True, "directAccessGrantsEnabled": False},
        {"clientId": "signer", "clientAuthenticatorType": "client-jwt", "publicClient": False, "secret": text(rng, 32)},
        {"clientId": "admin-cli", "publicClient": True, "directAccessGrantsEnabled": True},
    ]
    users = [
        {"username": "alice", "credentials": [{"type": "password", "secretData": json.dumps({"value": text(rng, 88)})}]}
    ]
    values = [
        Value("planner", secret, "oauth-client-secret", secret),
        Value("writer", "", "oauth-client-secret", "writer"),
        Value("web", "", "password-grant", "web"),
    ]
    return ("realm.json", json.dumps({"realm": "agents", "clients": clients, "users": users}, indent=2)), values


def _entra(rng: random.Random) -> tuple[File, list[Value]]:
    now = datetime.fromtimestamp(NOW, UTC)

    def credential(days: int, left: int) -> dict[str, object]:
        begin, end = now - timedelta(days=days), now + timedelta(days=left)
        key_id = f"{text(rng, 8, '0123456789abcdef')}-0000-4000-8000-{text(rng, 12, '0123456789abcdef')}"
        return {
            "keyId": key_id,
            "startDateTime": begin.isoformat(),
            "endDateTime": end.isoformat(),
            "hint": text(rng, 3),
        }

    application = {
        "appId": "11111111-2222-4333-8444-555555555555",
        "displayName": "planner",
        "passwordCredentials": [credential(500, 230), credential(800, -70)],
        "keyCredentials": [credential(20, 345)],
    }
    other = {
        "appId": "21111111-2222-4333-8444-555555555555",
        "displayName": "b",
        "passwordCredentials": [],
        "keyCredentials": [],
    }
    values = [
        Value("password", "", "oauth-client-secret", "password"),
        Value("certificate", "", "client-certificate", "certificate"),
    ]
    return ("applications.json", json.dumps({"value": [application, other]}, indent=1)), values


def _sealed(rng: random.Random) -> tuple[File, list[Value]]:
    data = {"API_KEY": "AgB" + base64.b64encode(rng.randbytes(300)).decode()}
    sealed = {
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": {"name": "s"},
        "spec": {"encryptedData": data},
    }
    reference = {"secretKey": "API_KEY", "remoteRef": {"key": "agents/crm", "property": "api-key"}}
    external = {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": "e"},
        "spec": {"data": [reference]},
    }
    return ("sealed.yaml", yaml.safe_dump(sealed) + "---\n" + yaml.safe_dump(external)), []


def _lock(rng: random.Random) -> tuple[File, list[Value]]:
    packages = {
        f"node_modules/{text(rng, 8).lower()}": {"integrity": f"sha512-{base64.b64encode(rng.randbytes(64)).decode()}"}
        for _ in range(20)
    }
    return ("package-lock.json", json.dumps({"lockfileVersion": 3, "packages": packages}, indent=2)), []


def _certificates(rng: random.Random) -> tuple[File, list[Value]]:
    return ("ca.pem", _pem(rng, "CERTIFICATE") + _pem(rng, "PUBLIC KEY")), []
