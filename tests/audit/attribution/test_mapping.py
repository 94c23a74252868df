from dataclasses import replace

import pytest

from delegation_audit.attribution.mapping import FieldNames, LogFormat

CEF = LogFormat(name="cef", title="CEF", kind="cef")


@pytest.mark.parametrize(
    ("table", "flat", "holds"),
    [
        pytest.param({"a": ("*",)}, {"a": "x"}, True, id="any-value"),
        pytest.param({"a": ("*",)}, {"a": "-"}, False, id="a-dash-is-no-value"),
        pytest.param({"a": ("",)}, {}, True, id="no-value"),
        pytest.param({"a": ("",)}, {"a": "x"}, False, id="a-value-is-not-none"),
        pytest.param({"a": ("@",)}, {"a": "-"}, True, id="there-with-or-without-value"),
        pytest.param({"a": ("@",)}, {}, False, id="not-there"),
        pytest.param({"a": ("x*", "y")}, {"a": "xz"}, True, id="a-pattern"),
        pytest.param({"a": ("x",), "b": ("y",)}, {"a": "x"}, False, id="every-field-of-a-table"),
    ],
)
def test_a_condition_holds_by_its_table(table: dict[str, tuple[str, ...]], flat: dict[str, str], holds: bool) -> None:
    assert CEF.holds((table,), flat) is holds
    assert CEF.holds(({"z": ("*",)}, table), flat) is holds


def test_a_format_without_a_condition_fits_every_line_of_its_kind() -> None:
    assert CEF.fits({})
    assert not replace(CEF, recognise=({"a": ("*",)},)).fits({})


def test_a_format_extends_another_with_its_own_fields_first() -> None:
    base = LogFormat(name="b", title="b", kind="json", none=("", "null"), fields=FieldNames(user=("x",), method=("m",)))
    own = replace(CEF, fields=FieldNames(user=("y",))).extend(base)
    assert own.fields == FieldNames(user=("y", "x"), method=("m",))
    assert own.none == ("", "-", "null")
    assert own.name == "cef"
