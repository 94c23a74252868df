from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.injector.fields import MalformedError, flag, mapping, mappings, number, text, texts

READERS: list[tuple[Callable[[Any, str], Any], object, object]] = [
    (mapping, {"a": 1}, {}),
    (mappings, [{}], ()),
    (text, "x", ""),
    (texts, ["x"], ()),
    (flag, True, False),
    (number, 7, None),
]
OF_ANOTHER_TYPE: list[object] = [{"a": 1}, [{}], "x", ["x"], True, 7, 1.5]


@pytest.mark.parametrize(("read", "value", "missing"), READERS)
def test_what_is_missing_or_null_is_empty(read: Callable[[Any, str], Any], value: object, missing: object) -> None:
    assert read({"it": value}, "it") == value
    assert read({}, "it") == read({"it": None}, "it") == missing


@pytest.mark.parametrize(("read", "value", "missing"), READERS)
def test_what_is_of_another_type_is_malformed(read: Callable[[Any, str], Any], value: object, missing: object) -> None:
    for other in OF_ANOTHER_TYPE:
        if other != value or type(other) is not type(value):
            with pytest.raises(MalformedError, match="it is no"):
                read({"it": other}, "it")
