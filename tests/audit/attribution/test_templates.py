import pytest

from delegation_audit.attribution.templates import Template, TemplateError


@pytest.mark.parametrize(
    ("template", "line", "fields"),
    [
        pytest.param("{a} {b}", "x y", {"a": "x", "b": "y"}, id="words"),
        pytest.param('{a} "{b}" {c}', 'x "y z" w', {"a": "x", "b": "y z", "c": "w"}, id="quotes"),
        pytest.param('"{a}" {b}', r'"x\" y" z', {"a": r"x\" y", "b": "z"}, id="an-escaped-quote"),
        pytest.param("{a} [{b}] {_}", "A. User [t] -", {"a": "A. User", "b": "t"}, id="a-space-before-a-longer-text"),
        pytest.param("{{{a}}} {b}", "{x} y", {"a": "x", "b": "y"}, id="braces"),
        pytest.param("{a} {status}", "x 200", {"a": "x", "status": "200"}, id="a-status"),
        pytest.param("{a} {status}", "x OK", None, id="a-word-is-no-status"),
        pytest.param("{address} {a}", "1.2.3.4 x", {"address": "1.2.3.4", "a": "x"}, id="an-address"),
        pytest.param("{a} {b}", "x", None, id="too-short"),
        pytest.param('{a} "{b}"', 'x "y" z', None, id="something-behind"),
        pytest.param('"{a}" "{b}"', '"x" "y" "z"', None, id="one-field-more"),
    ],
)
def test_a_line_reads_in_one_way_or_in_none(template: str, line: str, fields: dict[str, str] | None) -> None:
    assert Template(template).match(line) == fields


@pytest.mark.parametrize(
    ("template", "said"),
    [
        pytest.param("{a}{b}", "no text between {a}", id="two-fields-without-text-between"),
        pytest.param("{a} {a}", "{a} stands twice", id="a-name-twice"),
        pytest.param("{a b}", "'{a b}' is no field", id="a-space-in-a-name"),
        pytest.param("{a", "'{' is no field", id="an-open-brace"),
        pytest.param("text", "the template has no {field}", id="no-field"),
    ],
)
def test_a_template_that_is_none_says_why(template: str, said: str) -> None:
    with pytest.raises(TemplateError) as error:
        Template(template)
    assert said in str(error.value)


def test_text_of_a_template_is_no_regular_expression() -> None:
    assert Template("(.*)+ {a}").match("(.*)+ x") == {"a": "x"}
    assert Template("(.*)+ {a}").match("y x") is None


def test_a_hostile_line_ends() -> None:
    """Matching that gave characters back would outlast the limit of a test by far."""
    template = Template('{a} {b} {c} [{d}] "{e}" {status} "{f}" "{g}"')
    for hostile in ("a a " + " [" * 100_000, 'a a a [t] "' + "\\" * 199_999, "a " * 100_000, '"' * 100_000):
        assert template.match(hostile) is None
