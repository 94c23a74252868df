from __future__ import annotations

import base64
import json

import pytest

from delegation_audit.credentials.fields import Field
from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.plain import decode_key_file
from delegation_audit.credentials.tree import read_documents
from delegation_audit.credentials.values import registries, values
from tests.audit.credentials.drawn import PEM


def read(text: str) -> list[tuple[str, str]]:
    (root,) = read_documents(text)
    return [(field.name, field.value) for field in values(root, Field(name="top", value="", line=1), path="")]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("name", ["args", "command", "entrypoint"])
def test_an_argument_has_the_name_of_the_flag_before_it(name: str) -> None:
    found = read(f'{name}: [run, --token, value1, --key=value2, -e, A_B=value3, "--header", "X-Key: value4"]\n')
    for pair in (("token", "value1"), ("key", "value2"), ("A_B", "value3"), ("X-Key", "value4")):
        assert pair in found


def test_another_list_holds_no_flags() -> None:
    assert ("token", "value1") not in read("listed: [--token, value1]\n")


@pytest.mark.parametrize(
    "text",
    ["a: |\n  x\n  KEY=value1\n", "a: run KEY=value1\n", "a: KEY=value1\n", 'a: \'{"KEY": "value1"}\'\n'],
    ids=["lines", "a command", "an assignment", "JSON"],
)
def test_a_text_is_taken_apart(text: str) -> None:
    assert ("KEY", "value1") in read(text)


def test_a_text_alone_has_the_name_that_is_given() -> None:
    assert read("alone\n") == [("top", "alone")]


def test_an_encoded_key_is_decoded_and_its_encoding_hidden() -> None:
    for plain in (PEM, json.dumps({"type": "service_account"})):
        field = decode_key_file(Field(name="a", value=encoded(plain), line=1))
        assert (field.value, field.hidden) == (plain, (encoded(plain),))
    for other in (encoded("something else"), "LS0tLS1CRUdJTi!", "eyJ0eXBlIjo.eyJ0.x"):
        assert decode_key_file(Field(name="a", value=other, line=1)).value == other


def test_registries_have_passwords_in_two_forms_and_other_text_has_none() -> None:
    auths = {"auths": {"one": {"auth": "YTpi"}, "two": {"password": "p", "auth": "YTpw"}, "three": "x"}}
    one, two = registries(Field(name="", value=json.dumps(auths), line=1))
    assert one.value == "Basic YTpi"
    assert (two.value, two.kind, two.hidden) == ("p", Kind.BASIC_CREDENTIALS, ("YTpw",))
    assert (one.line, two.line) == (1, 1)
    for text in ("[]", "{", "1", '{"auths": []}', "[" * 100_000):
        assert list(registries(Field(name="", value=text, line=1))) == []


@pytest.mark.parametrize("form", ["the file", "a block of a manifest", "an encoded value"])
def test_a_registrys_password_has_the_line_of_its_key(form: str) -> None:
    text = json.dumps(
        {"auths": {"one": {}, "two": {"auth": "YTpi"}, "three": {"username": "a", "password": "p"}}}, indent=1
    )
    lines = [text[: text.index(secret)].count("\n") + 1 for secret in ("YTpi", '"p"')]
    field = Field(name="", value=text, line=1 if form == "the file" else 7, literal=form == "a block of a manifest")
    found = [one.line for one in registries(field, read_documents(text)[0] if form == "the file" else None)]
    assert found == {"the file": lines, "a block of a manifest": [6 + line for line in lines]}.get(form, [7, 7])
