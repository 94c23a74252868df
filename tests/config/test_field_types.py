"""Types of settings: each with values that it accepts, and others that differ in one fact."""

from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from sidecar.config import field_types
from sidecar.config.field_types import (
    FileText,
    Line,
    MethodText,
    OriginText,
    PathText,
    PrefixText,
    Reserved,
    RouteName,
    ScopeText,
    SpiffeIdText,
    TokenWay,
    TrustDomainText,
    one_of,
)

COLOUR = Annotated[str, *one_of(["red", "green"])]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (SpiffeIdText, "spiffe://acme.example/agent/planner"),
        (TrustDomainText, "acme.example"),
        (ScopeText, "docs.read"),
        (RouteName, "a" * 64),
        (RouteName, "Search_1.x-y"),
        (MethodText, "GET"),
        (OriginText, "https://a.example:1"),
        (FileText, "/etc/ca.pem"),
        (Line, "x" * 2048),
        (PathText, "/search"),
        (PrefixText, "/crm"),
        (COLOUR, "red"),
        (TokenWay, "exchange"),
        (field_types.Protocol, "http"),
        (Reserved, None),
    ],
)
def test_a_value_is_kept_as_it_is_written(kind: Any, value: object) -> None:
    assert TypeAdapter(kind).validate_python(value) == value


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (SpiffeIdText, "spiffe://acme.example", "; write spiffe://trust-domain/path"),
        (TrustDomainText, "spiffe://acme.example", "; write the name alone"),
        (ScopeText, "docs.read docs.write", "is not exactly one scope; write one per list item"),
        (ScopeText, "", "is not exactly one scope; write one per list item"),
        (ScopeText, 'docs"read', "is not exactly one scope; write one per list item"),
        (RouteName, "a" * 65, "; use 1 to 64 letters"),
        (RouteName, "a b", "; use 1 to 64 letters"),
        (RouteName, "", "; use 1 to 64 letters"),
        (RouteName, "none", "; use 1 to 64 letters"),
        (RouteName, "other", "; use 1 to 64 letters"),
        (MethodText, "get", "; write such as GET"),
        (OriginText, "https://a.example/x", "; write scheme://host:port alone"),
        (FileText, "etc/ca.pem", "; write one that starts with a slash"),
        (FileText, "/etc/ca.pem\0", "; write one that starts with a slash"),
        (Line, "x" * 2049, "is empty, too long or holds unprintable characters; write"),
        (Line, "", "is empty, too long or holds unprintable characters; write"),
        (Line, "a\nb", "is empty, too long or holds unprintable characters; write"),
        (PathText, "/a/../b", "; write it as it is served"),
        (PathText, "search", "; write it as it is served"),
        (PrefixText, "/crm/../x", "; write it as it is served"),
        (COLOUR, "blue", "has an unknown value; write one of red, green"),
        (field_types.Protocol, "jsonrpc", "is not available yet; remove it"),
        (Reserved, {}, "is not available yet; remove it"),
    ],
)
def test_a_refusal_tells_the_fault_and_one_fix(kind: Any, value: object, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(kind).validate_python(value)
    (error,) = refused.value.errors()
    assert words in error["msg"]
    assert error["msg"].count("; ") == 1


@pytest.mark.parametrize(("kind", "value"), [(TokenWay, "other"), (TokenWay, 1), (field_types.Protocol, ["mcp"])])
def test_a_word_of_no_release_is_no_word_of_a_later_one(kind: Any, value: object) -> None:
    with pytest.raises(ValidationError, match="Input should be"):
        TypeAdapter(kind).validate_python(value)
