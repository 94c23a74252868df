from __future__ import annotations

import pytest

from sidecar.identity.shapes import MAX_BYTES, MAX_SHAPES, Shapes

MESSAGE = b"ab--cd--ef"
FIELDS = [(2, 4), (6, 8)]


def known() -> Shapes:
    shapes = Shapes()
    shapes.keep(MESSAGE, FIELDS)
    return shapes


def test_a_message_is_cut_where_an_earlier_one_was() -> None:
    assert known().cut(b"ab12cd34ef") == (b"12", b"34")
    assert known().cut(MESSAGE) == (b"--", b"--")


@pytest.mark.parametrize("at", [0, 1, 4, 5, 8, 9])
def test_every_byte_outside_the_fields_must_be_the_same(at: int) -> None:
    changed = MESSAGE[:at] + b"x" + MESSAGE[at + 1 :]
    assert known().cut(changed) is None


@pytest.mark.parametrize("other", [b"", MESSAGE[:-1], MESSAGE + b"x"])
def test_a_message_of_another_size_is_not_known(other: bytes) -> None:
    assert known().cut(other) is None


def test_a_message_without_fields_is_known_as_a_whole() -> None:
    shapes = Shapes()
    shapes.keep(b"123", [])
    assert shapes.cut(b"123") == ()
    assert shapes.cut(b"124") is None


def test_one_field_may_be_all_of_it_or_nothing() -> None:
    shapes = Shapes()
    shapes.keep(b"123", [(0, 3)])
    assert shapes.cut(b"xyz") == (b"xyz",)
    shapes.keep(b"1234", [(4, 4)])
    assert shapes.cut(b"1234") == (b"",)
    assert shapes.cut(b"1235") is None


def test_the_last_shape_of_a_size_is_remembered() -> None:
    shapes = known()
    shapes.keep(b"ab--------", [(2, 10)])
    assert shapes.cut(b"ab12cd34ef") == (b"12cd34ef",)


def test_there_are_never_too_many_and_never_large_ones() -> None:
    shapes = Shapes()
    for size in range(3 * MAX_SHAPES):
        shapes.keep(bytes(size), [])
        assert len(shapes) <= MAX_SHAPES
    assert shapes.cut(bytes(size)) == ()
    shapes.keep(bytes(MAX_BYTES + 1), [])
    assert shapes.cut(bytes(MAX_BYTES + 1)) is None
