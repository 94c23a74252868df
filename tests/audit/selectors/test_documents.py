import pytest

from delegation_audit.selectors import documents
from delegation_audit.selectors.documents import Found, read_documents
from delegation_audit.yaml_events import MAX_DEPTH


def read(text: str) -> list[tuple[int, object]]:
    found = list(read_documents(text))
    assert all(one.error is None for one in found), found
    return [(one.line, one.value) for one in found]


def faults(text: str) -> list[Found]:
    return [one for one in read_documents(text) if one.error is not None]


@pytest.mark.parametrize(
    "text",
    [
        '{"entries":[\n{"a":1},\n{"a":2}],"next_page_token":""}',
        '[\n{"a":1},\n{"a":2}]',
        '\n{"a":1}\n{"a":2}\n',
        '{"next_page_token":"",\n"entries":[{"a":1},\n{"a":2}]}',
        '\ufeff\n{"kind":"List","items":[{"a":1},\n{"a":2}]}',
        "entries:\n- a: 1\n- a: 2\n",
        "\n- a: 1\n- a: 2\n",
        "kind: List\nitems: [{a: 1},\n {a: 2}]\n",
        "---\na: 1\n---\na: 2\n",
        "---\n{a: 1}\n# none\n---\n",
    ],
)
def test_each_form_gives_its_objects_with_their_lines(text: str) -> None:
    found = read(text)
    assert [value for _, value in found] in ([{"a": 1}, {"a": 2}], [{"a": 1}])
    lines = text.split("\n")
    for line, value in found:
        assert isinstance(value, dict)
        near = "".join(lines[line - 1 : line + 1])
        assert f"{value['a']}" in near


def test_pages_of_a_server_follow_each_other() -> None:
    assert [value for _, value in read('{"entries":[{"a":1}]}\n{"entries":[]}\n{"entries":[{"a":2}]}')] == [
        {"a": 1},
        {"a": 2},
    ]


def test_yaml_keeps_words_and_reads_only_plain_numbers_and_truths() -> None:
    [(_, value)] = read('a: 0x10\nb: "1"\nc: true\nd: null\ne: yes\nf: 2026-01-01\ng: 1_000\nh: 12\n')
    assert value == {
        "a": "0x10",
        "b": "1",
        "c": True,
        "d": None,
        "e": "yes",
        "f": "2026-01-01",
        "g": "1_000",
        "h": 12,
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a":1,"a":2}', 1),
        ('{"a":NaN}', 1),
        ('{"entries":[{"a":1},\n{"b":}]}', 2),
        ('[{"a":1}', 1),
        ('{"a":' + "9" * 40 + "}", 1),
        ("[" * 100_000, 1),
        ('{"a":' * 100_000, 1),
        ("a: 1\na: 2\n", 2),
        ("a: [1]\nb: *x\n", 2),
        ("a: &x [*x]\n", 1),
        ("a:\n\tb: 1\n", 2),
        ("a: {{ .Values.x }}\n", 1),
        ("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), 1),
    ],
)
def test_what_is_ambiguous_or_too_deep_is_a_fault_with_its_line(text: str, line: int) -> None:
    found = faults(text)
    assert len(found) == 1
    assert abs(found[0].line - line) <= 1
    assert "9999" not in (found[0].error or "")


def test_a_tag_makes_no_object() -> None:
    [(_, value)] = read("a: !!python/object/apply:os.system ['true']\n")
    assert value == {"a": ["true"]}


def test_one_broken_line_does_not_hide_the_next() -> None:
    found = list(read_documents('{"a":1}\n{"a":\n{"a":2}\n'))
    assert [one.value for one in found if one.error is None] == [{"a": 1}, {"a": 2}]
    assert [one.line for one in found if one.error is not None] == [2]


def test_an_alias_is_the_same_object_and_a_merge_adds_what_is_not_stated() -> None:
    [(_, value)] = read("base: &base {admin: true, hint: a}\nspec: {<<: *base, hint: b}\nmore: [*base]\n")
    assert value == {
        "base": {"admin": True, "hint": "a"},
        "spec": {"admin": True, "hint": "b"},
        "more": [{"admin": True, "hint": "a"}],
    }


def test_a_tree_of_billions_costs_nothing() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{at}: &a{at} [*a{at - 1}, *a{at - 1}]" for at in range(1, 60))]
    [(_, value)] = read("\n".join(lines))
    assert isinstance(value, dict)
    assert len(value) == 60


def test_a_text_whose_faults_cost_its_length_each_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"a":[1,\n' * 3000
    found = faults(text)
    assert "the rest was not read" in (found[-1].error or "")
    assert len(found) < 50


def test_a_yaml_document_has_a_limit_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_NODES", 12)
    assert "more than 12 values" in (faults(f"a: [{'x, ' * 10}]")[0].error or "")
    assert faults("a: [x, x]") == []
