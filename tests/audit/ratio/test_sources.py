"""Directories as identity providers export them; every file that is something else is named with its fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from delegation_audit.ratio.sources import SourceError, keys_in, people_in
from tests.audit.ratio.evidence import credentials


@pytest.mark.parametrize(
    "text",
    [
        "id,email,status\nu1,a@x,active\nu2,b@x,active\nu3,c@x,suspended\n",
        json.dumps({"Resources": [{"id": "u1"}, {"id": "u2", "active": True}, {"id": "u3", "active": False}]}),
        json.dumps(
            {"value": [{"id": "u1", "accountEnabled": True}, {"id": "u2"}, {"id": "u3", "accountEnabled": False}]}
        ),
        json.dumps({"users": [{"id": "u1", "enabled": True}, {"id": "u2"}, {"id": "u3", "enabled": False}]}),
        json.dumps([{"sub": "u1", "id": "1"}, {"sub": "u2", "id": "2"}]),
        "\ufeff" + json.dumps([{"id": "u1"}, {"id": "u2"}]),
    ],
    ids=["csv", "scim", "graph", "keycloak", "list", "with-a-byte-order-mark"],
)
def test_active_people_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "d").write_text(text)
    assert list(people_in(str(tmp_path / "d"))) == ["u1", "u2"]


def test_a_field_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("id,oid\n1,x\n2,y\n")
    assert list(people_in(str(tmp_path / "d"), "oid")) == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ": empty"),
        ("name\nx\n", "person 1 has no sub, id, userName or email; name the field by --directory-field"),
        ("[1]", "no list of users"),
        ('{"a":1}', "no list of users"),
        ("[{", "begins like JSON but is not JSON"),
        ("[" * 100_000, "begins like JSON but is not JSON"),
        ("[]", "no active person"),
        ("id,status\n1,disabled\n", "no active person"),
        ('id\n"x', "neither JSON nor CSV"),
    ],
)
def test_any_other_file_is_named_with_its_fix(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "d").write_text(text)
    with pytest.raises(SourceError, match=words) as error:
        list(people_in(str(tmp_path / "d")))
    assert str(error.value).startswith(str(tmp_path / "d"))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"id\n\xff\n")
    with pytest.raises(SourceError, match="not UTF-8"):
        list(people_in(str(tmp_path / "d")))


def test_credentials_are_read_with_their_owner_and_the_unsure_are_not(tmp_path: Path) -> None:
    assert list(keys_in(credentials(tmp_path / "c", "f1", "f2"))) == [
        ("f1", "Deployment shop/bot"),
        ("f2", "Deployment shop/bot"),
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"credentials":[{}]}', '{"credentials":[1]}'])
def test_another_document_holds_no_credentials(tmp_path: Path, text: str) -> None:
    (tmp_path / "c").write_text(text)
    with pytest.raises(SourceError, match="audit credentials --json"):
        list(keys_in(str(tmp_path / "c")))
