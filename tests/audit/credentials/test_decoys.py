from __future__ import annotations

import pytest

from delegation_audit.credentials.decoys import entropy, is_decoy, is_digest, is_placeholder, is_public, is_reference
from tests.audit.credentials.drawn import AWS_KEY, GITHUB, KEY, PASSWORD, PEM


@pytest.mark.parametrize(
    "value",
    [
        *("changeme", "CHANGE_ME", "change-it", "<your-key>", "your-api-key-here", "xxxxxxxx", "********", "sk-..."),
        *("REPLACE_WITH_TOKEN", "dummy-key", "placeholder", "password", "null", "TODO", "12345678", "abcdefgh", "aaaa"),
        "AKIAIOSFODNN7" + "EXAMPLE",
    ],
)
def test_a_placeholder_is_a_decoy(value: str) -> None:
    assert is_placeholder(value)
    assert is_decoy(value)


@pytest.mark.parametrize(
    "value",
    [
        *("${API_KEY}", "$API_KEY", "$(cat key)", "{{ .Values.key }}", "%API_KEY%", "<%= key %>", "__API_KEY__"),
        *("vault:secret/data/a#b", "op://vault/item/field", "ref+vault://a", "ENC[AES256_GCM,data:x]", "file:/run/key"),
        *("arn:aws:secretsmanager:eu:1:secret:a", "projects/p/secrets/s", "/run/secrets/api_key", "./keys/api.pem"),
        *("process.env.KEY", "os.environ['KEY']", "secrets.API_KEY", "@Microsoft.KeyVault(SecretUri=x)"),
        *("azurekeyvault://v/s", "${{ secrets.KEY }}", "${input:key}", "sm://project/secret"),
        *("{PASSWORD}", "pre{config.password}", "{}", "{0}", "%s", "a${PASSWORD}b", ":password"),
    ],
)
def test_the_name_of_a_secret_is_a_decoy(value: str) -> None:
    assert is_reference(value)
    assert is_decoy(value)


@pytest.mark.parametrize(
    "value",
    [
        "-----BEGIN CERTIFICATE-----\nMIIB",
        "-----BEGIN PUBLIC KEY-----\nMIIB",
        "ssh-ed25519 AAAAC3NzaC1lZDI1",
        "$2b$12$abcdefghijklmnopqrstuv",
        "{SSHA}0123",
    ],
)
def test_public_material_and_hashes_of_passwords_are_decoys(value: str) -> None:
    assert is_public(value)
    assert is_decoy(value)


@pytest.mark.parametrize(
    "value", [KEY, PASSWORD, GITHUB, AWS_KEY, PEM, "/" + KEY, "hunter2hunter", "P@ss/w0rd:x", "a{b!c}1%s"]
)
def test_a_secret_is_no_decoy(value: str) -> None:
    assert not is_decoy(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anything", "2d931510-d99f-494a-8c67-87feb05e1594"),
        ("GIT_COMMIT", "ab" * 20),
        ("CONFIG_SHA256", "0f" * 32),
        ("anything", "sha256:" + "0f" * 32),
        ("anything", "sha512-" + "A" * 88),
    ],
)
def test_a_digest_is_known_by_its_form_or_its_name(name: str, value: str) -> None:
    assert is_digest(name, value)


def test_a_hexadecimal_key_is_no_digest() -> None:
    assert not is_digest("CRM_API_KEY", "ab" * 16)


def test_entropy_is_in_bits_for_each_character() -> None:
    assert entropy("") == 0
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2
