"""Private JWKs are found in every kind of file, once, at the line of the key; the same key's public half is not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final

import pytest
import yaml

from delegation_audit.credentials.examine import Result, examine
from delegation_audit.credentials.jwk import find_jwks
from delegation_audit.credentials.kinds import Kind
from tests.audit.credentials.labelled import text
from tests.fakes.detector import FakeDetector

_RNG: Final = random.Random(20261203)
_PUBLIC: Final = {"use": "sig", "kid": "a", "n": text(_RNG, 342), "x": text(_RNG, 43)}
SECRET: Final = text(_RNG, 43)
OTHER: Final = text(_RNG, 43)
PRIVATE: Final = [
    {"kty": "RSA", **_PUBLIC, "d": SECRET, "p": OTHER, "q": text(_RNG, 43)},
    {"kty": "RSA", **_PUBLIC, "p": SECRET, "q": OTHER},
    {"kty": "EC", **_PUBLIC, "d": SECRET},
    {"kty": "OKP", "d": SECRET, **_PUBLIC},
    {"kty": "oct", "k": SECRET},
]
NONE: Final = [
    {"kty": "RSA", **_PUBLIC},
    {"kty": "EC", **_PUBLIC, "d": "${SIGNING_KEY}"},
    {"kty": "EC", **_PUBLIC, "d": "your-private-key-here"},
    {"kty": "EC", **_PUBLIC, "d": ""},
    {"kty": "EC", **_PUBLIC, "k": SECRET},
    {"kty": "oct", "d": SECRET},
    {"kty": "other", "d": SECRET},
]
FORMS: Final = {
    "key.json": lambda key: json.dumps(key, indent=1),
    "jwks.json": lambda key: json.dumps({"keys": [{"kty": "RSA", **_PUBLIC}, key]}, indent=1),
    "values.yaml": lambda key: yaml.safe_dump({"signing": {"key": key}}, sort_keys=False),
    "manifest.yaml": lambda key: yaml.safe_dump(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"jwk": json.dumps(key)}},
        width=100_000,
    ),
    "agent.env": lambda key: f"A=1\nSIGNING_JWK={json.dumps(key)}\n",
    "agent.py": lambda key: f"KEY = {json.dumps(key, indent=4)}\n",
    "escaped.json": lambda key: json.dumps({"env": json.dumps(key)}),
}


def run(folder: Path) -> Result:
    return examine([str(folder)], FakeDetector(), now=1_790_000_000)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", PRIVATE, ids=lambda key: f"{key['kty']}-{len(key)}")
def test_a_private_key_is_found_at_its_line(form: str, key: dict[str, str], tmp_path: Path) -> None:
    content = FORMS[form](key)
    (tmp_path / form).write_text(content)
    found = run(tmp_path)
    (one,) = found.credentials
    assert one.kind is Kind.PRIVATE_KEY
    assert {place.line for place in one.places} == {content[: content.index(SECRET)].count("\n") + 1}
    assert SECRET[:6] not in repr(found)
    assert OTHER[:6] not in repr(found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", NONE, ids=lambda key: f"{key['kty']}-{len(key)}-{key.get('d', '')[:4]}")
def test_the_same_key_with_one_fact_changed_is_none(form: str, key: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / form).write_text(FORMS[form](key))
    assert [one for one in run(tmp_path).credentials if one.kind is Kind.PRIVATE_KEY] == []


def test_each_private_key_of_a_set_counts(tmp_path: Path) -> None:
    keys = [{"kty": "EC", "d": SECRET}, {"kty": "EC", "d": OTHER}, {"kty": "EC", **_PUBLIC}]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": keys}))
    (tmp_path / "a.py").write_text(json.dumps({"keys": keys}))
    assert [len(one.places) for one in run(tmp_path).credentials] == [2, 2]


def test_objects_beside_a_type_are_not_joined() -> None:
    one, other = '{"kty": "EC", "x": "a"}', json.dumps({"d": SECRET})
    assert list(find_jwks(one + other)) == list(find_jwks(other + one)) == []
    assert [key.secret for key in find_jwks(one + json.dumps({"kty": "EC", "d": SECRET}))] == [SECRET]


@pytest.mark.parametrize(
    "text", ['"kty": "EC", ' * 100_000, ("{" + '"kty":"EC",' * 1300 + "}") * 300], ids=["open", "closed"]
)
def test_a_text_of_types_alone_costs_no_more_than_its_length(text: str) -> None:
    assert list(find_jwks(text)) == []  # a search of each object for each type would exceed the time of a test
