"""Operations of gRPC, by path, by word of the settings, and as records name them."""

from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.grpc import is_word, key_of_path, key_of_word, label_of
from delegation_core.operation import OTHER, Operations


def test_a_path_names_a_method_of_a_service() -> None:
    assert key_of_path("/pkg.v1.Service/Method", b"") == "pkg.v1.Service:Method"
    assert key_of_path("/Service/method_2", b"") == "Service:method_2"


@pytest.mark.parametrize(
    "path",
    ["/", "/Service", "/Service/", "//Method", "/a/b/c", "/pkg..Service/Method", "/pkg.Service/*", "/pkg.Service/M-a",
     "/1pkg/Method", "/pkg.Service/Method/", "/pkg:Service/Method", "/pkg.S\u00e9rvice/Method"],
)  # fmt: skip
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(Denied) as refused:
        key_of_path(path, b"")
    assert refused.value.reason is Reason.OPERATION_MALFORMED


def test_a_call_has_no_query() -> None:
    with pytest.raises(Denied):
        key_of_path("/pkg.Service/Method", b"a=b")


def test_a_word_of_the_settings_names_a_method_or_all_of_a_service() -> None:
    assert key_of_word("pkg.Service/Method") == key_of_word("/pkg.Service/Method") == "pkg.Service:Method"
    assert key_of_word("pkg.Service/*") == "pkg.Service:*"
    assert is_word("pkg.Service/*")


@pytest.mark.parametrize("word", ["", "*", "pkg.Service", "pkg.*/Method", "*/*", "pkg.Service:Method", "pkg.Service/"])
def test_any_other_word_is_a_fault_with_its_fix(word: str) -> None:
    assert not is_word(word)
    with pytest.raises(ValueError, match=r"; write pkg\.Service/Method"):
        key_of_word(word)


def test_records_name_what_the_settings_list_and_nothing_of_a_caller() -> None:
    operations: Operations[object] = Operations({"a.B:C": 1, "a.D:*": 2}, named=["a.E:F"])
    assert label_of(operations, "a.B:C") == "/a.B/C"
    assert label_of(operations, "a.E:F") == "/a.E/F"
    assert label_of(operations, "a.D:Any") == "/a.D/other"
    assert label_of(operations, "a.B:Other") == label_of(operations, "mallory.X:Y") == OTHER
