"""The library and its fake pass the same tests; a rename of a rule we depend on fails here."""

from __future__ import annotations

import importlib
import socket

import pytest

from delegation_audit.credentials.detector import MISSING, Detector, DetectorError, Kingfisher
from delegation_audit.credentials.kinds import find_kind
from tests.audit.credentials.drawn import AWS_ID, AWS_KEY, GITHUB, HUGGING_FACE, PEM
from tests.fakes.detector import FakeDetector

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(params=["library", "fake"])
def detector(request: pytest.FixtureRequest, kingfisher: Kingfisher) -> Detector:
    return kingfisher if request.param == "library" else FakeDetector()


@pytest.mark.parametrize(
    ("secret", "rule"),
    [
        (GITHUB, "betterleaks.github-pat"),
        (HUGGING_FACE, "betterleaks.huggingface-access-token"),
    ],
)
def test_a_secret_is_found_with_rule_line_and_column(detector: Detector, secret: str, rule: str) -> None:
    (hit,) = detector.find(f'one\nkey = "{secret}"\nthree\n')
    assert (hit.rule, hit.secret, hit.line, hit.column) == (rule, secret, 2, 8)


def test_an_aws_key_id_is_found_beside_its_key_only(detector: Detector) -> None:
    assert list(detector.find(f'id = "{AWS_ID}"\n')) == []
    (hit,) = detector.find(f'aws_access_key_id = "{AWS_ID}"\naws_secret_access_key = "{AWS_KEY}"\n')
    assert (hit.rule, hit.secret, hit.line) == ("betterleaks.aws-access-token", AWS_ID, 1)


def test_a_private_key_is_found_whole_at_its_first_line(detector: Detector) -> None:
    (hit,) = detector.find(f"one\n{PEM}")
    assert (hit.rule, hit.secret, hit.line) == ("betterleaks.private-key", PEM.strip(), 2)


def test_text_without_secrets_has_no_hit(detector: Detector) -> None:
    assert list(detector.find("name = agent\nport = 8080\n")) == []


def test_finding_opens_no_connection(kingfisher: Kingfisher, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert [hit.secret for hit in kingfisher.find(f"token: {GITHUB}\n")] == [GITHUB]


def test_the_rules_that_kinds_are_made_of_are_in_the_catalogue() -> None:
    library = importlib.import_module("kingfisher_sdk")
    rules = {rule["id"] for rule in library.Rules().metadata() if rule["visible"]}
    for name in ("openai-api-key", "anthropic-api-key", "gcp-service-account", "azure-ad-client-secret", "gitlab-pat"):
        assert f"betterleaks.{name}" in rules
    assert len([rule for rule in rules if find_kind(rule)]) > 300


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DetectorError) as caught:
        Kingfisher()
    assert str(caught.value) == MISSING
