from __future__ import annotations

from dataclasses import replace

import pytest

from delegation_audit.credentials import judge as module
from delegation_audit.credentials.fields import Exposure, Field
from delegation_audit.credentials.judge import judge
from delegation_audit.credentials.kinds import Kind
from delegation_audit.rules import Confidence
from tests.audit.credentials.drawn import AWS_ID, AWS_KEY, GITHUB, HUGGING_FACE, KEY, PASSWORD, PEM
from tests.fakes.detector import FakeDetector

NOW = 1_790_000_000


def judged(*fields: Field) -> list[tuple[str, Kind, str]]:
    return [(one.field.name, one.kind, one.secret) for one in judge(fields, FakeDetector(), now=NOW)]


def field(name: str, value: str, exposure: Exposure = Exposure.CONFIGURATION, group: int = 0) -> Field:
    return Field(name=name, value=value, line=1, exposure=exposure, group=group)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("GITHUB_TOKEN", GITHUB, Kind.GIT_HOST_TOKEN),
        ("anything", GITHUB, Kind.GIT_HOST_TOKEN),
        ("HF_TOKEN", HUGGING_FACE, Kind.MODEL_PROVIDER_KEY),
        ("MISTRAL_API_KEY", KEY, Kind.MODEL_PROVIDER_KEY),
        ("AZURE_OPENAI_API_KEY", KEY, Kind.MODEL_PROVIDER_KEY),
        ("AZURE_CLIENT_SECRET", KEY, Kind.AZURE_KEY),
        ("CLIENT_SECRET", KEY, Kind.OAUTH_CLIENT_SECRET),
        ("oauth.clientSecret", KEY, Kind.OAUTH_CLIENT_SECRET),
        ("DB_PASSWORD", PASSWORD, Kind.DATABASE_PASSWORD),
        ("spring.datasource.password", PASSWORD, Kind.DATABASE_PASSWORD),
        ("ADMIN_PASSWORD", "hunter2!", Kind.PASSWORD),
        ("X-API-Key", KEY, Kind.API_KEY),
        ("crm-token", KEY, Kind.API_KEY),
        ("AWS_SECRET_ACCESS_KEY", AWS_KEY, Kind.AWS_ACCESS_KEY),
        ("Authorization", f"Bearer {KEY}", Kind.BEARER_TOKEN),
        ("Authorization", f"Bearer {GITHUB}", Kind.GIT_HOST_TOKEN),
    ],
)
def test_a_value_is_judged_by_its_form_and_by_its_name(name: str, value: str, kind: Kind) -> None:
    assert [one[1] for one in judged(field(name, value))] == [kind]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("API_KEY", value)
            for value in ("changeme", "${KEY}", "vault:a", "short1", "words-of-a-name", "f(key1234567)")
        ),
        *((name, KEY) for name in ("API_KEY_FILE", "TOKEN_URL", "SECRET_NAME", "TOKEN_HASH", "PUBLIC_KEY_ID")),
        ("COMMIT_TOKEN", "ab" * 20),
        ("PASSWORD", "a b c d e f"),
        ("PASSWORD", "short"),
        ("DB_PASSWORD", "$2b$12$abcdefghijklmnopqrstuv"),
        ("AWS_ACCESS_KEY_ID", "ASIA" + AWS_ID[4:]),
        ("name", KEY[:16]),
    ],
)
def test_a_decoy_or_a_name_of_something_else_is_nothing(name: str, value: str) -> None:
    assert judged(field(name, value)) == []


def test_a_password_in_code_needs_more_evidence_than_in_settings() -> None:
    for value in ("usersecretword", "1.2.3-rc1", "user-secret-word"):
        assert judged(replace(field("password", value), strict=True)) == []
        assert judged(field("password", value)) != []
    assert judged(replace(field("password", PASSWORD), strict=True)) != []


@pytest.mark.parametrize("value", ["Passwort", "Contraseña", "mot de passe", "https://host/reset"])
def test_a_text_for_people_is_no_password_anywhere(value: str) -> None:
    assert judged(field("password", value)) == []


def test_the_halves_of_an_aws_key_are_one_credential_named_by_its_id() -> None:
    pair = field("AWS_ACCESS_KEY_ID", AWS_ID, group=1), field("AWS_SECRET_ACCESS_KEY", AWS_KEY, group=1)
    assert {(kind, secret) for _, kind, secret in judged(*pair)} == {(Kind.AWS_ACCESS_KEY, AWS_ID)}


def test_the_halves_in_different_groups_are_two() -> None:
    pair = field("AWS_ACCESS_KEY_ID", AWS_ID, group=1), field("AWS_SECRET_ACCESS_KEY", AWS_KEY, group=2)
    assert {secret for _, _, secret in judged(*pair)} == {AWS_ID, AWS_KEY}


def test_a_temporary_key_pair_is_nothing() -> None:
    pair = field("AWS_ACCESS_KEY_ID", "ASIA" + AWS_ID[4:], group=1), field("AWS_SECRET_ACCESS_KEY", AWS_KEY, group=1)
    assert judged(*pair) == []


def test_a_private_key_is_the_same_however_its_lines_are_broken() -> None:
    broken, escaped = field("a", PEM), field("b", PEM.replace("\n", "\\n"))
    one, other = judged(broken, escaped)
    assert one[1:] == other[1:]
    assert one[1] is Kind.PRIVATE_KEY


def test_a_hit_in_a_block_tells_its_own_line() -> None:
    block = Field(name="", value=f"one\ntwo\n{GITHUB}\n", line=10, literal=True)
    (found,) = judge([block], FakeDetector(), now=NOW)
    assert found.field.line + found.offset == 12


def test_text_that_only_looks_random_is_unsure_and_only_in_settings() -> None:
    (found,) = judge([field("SEED", KEY + PASSWORD)], FakeDetector(), now=NOW)
    assert (found.kind, found.confidence) == (Kind.RANDOM_TEXT, Confidence.LOW)
    assert judged(field("SEED", KEY + PASSWORD, Exposure.CODE)) == []


def test_a_name_with_line_breaks_shifts_no_hit() -> None:
    fields = field("a\nb\nc", "x"), field("d", GITHUB)
    assert [name for name, _, _ in judged(*fields)] == ["d"]


def test_a_long_text_is_given_to_the_detector_in_pieces_that_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIECE", 2000)
    lines = ["x" * 20] * 400
    lines[99], lines[398] = GITHUB, HUGGING_FACE
    detector = FakeDetector()
    whole = Field(name="", value="\n".join(lines), line=1, literal=True)
    assert [(one.secret, one.offset) for one in judge([whole], detector, now=NOW)] == [
        (GITHUB, 99),
        (HUGGING_FACE, 398),
    ]
    assert max(map(len, detector.texts)) < 2100
    assert sum(map(len, detector.texts)) > len(whole.value)  # they overlap


def test_the_whole_text_of_a_file_is_left_to_the_detector() -> None:
    whole = Field(name="", value=f"password: {PASSWORD}\ntoken: {GITHUB}\n", line=1, literal=True)
    assert [kind for _, kind, _ in judged(whole)] == [Kind.GIT_HOST_TOKEN]
