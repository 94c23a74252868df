from __future__ import annotations

import json

import pytest

from delegation_core.errors import Reason
from delegation_core.json_rpc import (
    _LONGEST_SOUND,
    _MOST_SOUND,
    _SOUND,
    ID_WITHIN,
    MessageRefused,
    RpcMessage,
    id_at_beginning,
    one_spelling,
    parse_plain_body,
    parse_rpc,
    without_marks,
)


def parse(text: str | bytes) -> RpcMessage:
    return parse_rpc(text if isinstance(text, bytes) else text.encode(), max_bytes=4096)


def test_a_request_a_notification_and_a_response_are_told_apart() -> None:
    assert parse('{"jsonrpc":"2.0","id":7,"method":"ping"}') == RpcMessage(7, "ping", {})
    assert parse('{"jsonrpc":"2.0","method":"m","params":{"a":1}}') == RpcMessage(None, "m", {"a": 1})
    assert parse('{"jsonrpc":"2.0","id":"x","result":{}}') == RpcMessage("x", None, {})
    assert parse('{"jsonrpc":"2.0","id":"x","error":{"code":1}}').method is None


def test_arguments_may_hold_long_integers_and_nest() -> None:
    arguments = {"id": 1234567890123456789, "deep": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}
    assert parse(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": arguments})).params == arguments


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('[{"jsonrpc":"2.0","id":1,"method":"ping"}]', id="batch"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}', id="two-methods"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","Method":"b"}', id="two-methods-by-case"),
        pytest.param('{"jsonrpc":"2.0","id":1,"METHOD":"a"}', id="method-in-capitals"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","param\u017f":{}}', id="params-with-a-long-s"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"a","name":"b"}}', id="two-names"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a"}{"jsonrpc":"2.0","id":1,"method":"b"}', id="two-documents"),
        pytest.param('\ufeff{"jsonrpc":"2.0","id":1,"method":"a"}', id="byte-order-mark"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', id="not-utf-8"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', id="lone-surrogate"),
        pytest.param('{"jsonrpc":"1.0","id":1,"method":"a"}', id="version-1"),
        pytest.param('{"id":1,"method":"a"}', id="no-version"),
        pytest.param('{"jsonrpc":"2.0","id":1}', id="neither"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","result":{}}', id="both"),
        pytest.param('{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', id="result-and-error"),
        pytest.param('{"jsonrpc":"2.0","result":{}}', id="result-without-id"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":""}', id="empty-method"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":7}', id="method-is-a-number"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":null}', id="method-is-null"),
        pytest.param('{"jsonrpc":"2.0","id":null,"method":"a"}', id="id-is-null"),
        pytest.param('{"jsonrpc":"2.0","id":true,"method":"a"}', id="id-is-true"),
        pytest.param('{"jsonrpc":"2.0","id":1.5,"method":"a"}', id="id-is-a-fraction"),
        pytest.param('{"jsonrpc":"2.0","id":9007199254740992,"method":"a"}', id="id-beyond-every-parser"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","params":[]}', id="params-are-a-list"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","params":' + '{"a":' * 300 + "1" + "}" * 301, id="nesting"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":NaN}}', id="nan"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":"' + "x" * 4096 + '"}}', id="too-long"),
        pytest.param("", id="empty"),
        pytest.param('{"jsonrpc":"2.0","id":1,"result":{},"__proto__":{"method":"a"}}', id="prototype"),
        pytest.param('{"jsonrpc":"2.0","id":1,"result":{},"method\\u0000":"a"}', id="method-before-nul"),
        pytest.param('{"jsonrpc":"2.0","id":1,"result":{},"params":{}}', id="params-beside-a-result"),
        pytest.param('{"jsonrpc":"2.0","id":1,"method":"a","more":1}', id="unknown-member"),
        pytest.param('{"jsonrpc":"2.0","id":"' + "x" * 257 + '","method":"a"}', id="long-id"),
    ],
)
def test_what_two_parsers_could_read_in_two_ways_is_refused(body: str | bytes) -> None:
    with pytest.raises(MessageRefused) as refused:
        parse(body)
    assert refused.value.reason is Reason.OPERATION_MALFORMED


@pytest.mark.parametrize("names", ["name\0", "__proto__", "na\u200bme"])
def test_a_name_that_some_parsers_take_for_another_is_refused(names: str) -> None:
    one_spelling({"name": "a", "other": 1}, frozenset({"name"}))
    with pytest.raises(MessageRefused):
        one_spelling({"name": "a", names: "b"}, frozenset({"name"}))


@pytest.mark.parametrize(
    "more", ['"method":"CancelTask"', '"Method":"CancelTask"', '"jsonrpc":"2.0"', '"method\\u0000":"x"']
)
def test_a_body_of_http_json_is_no_message_of_json_rpc(more: str) -> None:
    assert parse_plain_body(b'{"message":{"method":"x"}}', max_bytes=4096) == {"message": {"method": "x"}}
    with pytest.raises(MessageRefused) as refused:
        parse_plain_body(f'{{"message":{{}},{more}}}'.encode(), max_bytes=4096)
    assert refused.value.reason is Reason.OPERATION_MALFORMED


def test_a_refusal_carries_the_id_where_it_was_read() -> None:
    with pytest.raises(MessageRefused) as refused:
        parse('{"jsonrpc":"2.0","id":"seven","method":"a","params":[]}')
    assert refused.value.id == "seven"


def test_names_that_were_found_sound_are_so_for_the_same_question_alone() -> None:
    members = {"Name": 1, "task_id": 2}
    for _ in range(2):
        one_spelling(members, frozenset({"other"}))
        with pytest.raises(MessageRefused, match="another spelling"):
            one_spelling(members, frozenset({"name"}))
        with pytest.raises(MessageRefused, match="another spelling"):
            one_spelling(members, frozenset({"taskId"}), fold=without_marks)


def test_names_that_were_found_sound_are_kept_within_a_bound() -> None:
    _SOUND.clear()
    for number in range(3 * _MOST_SOUND):
        one_spelling({f"n{number}": 1}, frozenset())
        assert len(_SOUND) <= _MOST_SOUND
    before = len(_SOUND)
    one_spelling({"n" * (_LONGEST_SOUND + 1): 1}, frozenset())
    assert len(_SOUND) == before


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":"', 7),
        (b'{"jsonrpc":"2.0", "id" : "a\\"b", "method":"x"', 'a"b'),
        (b'{"params":{"id":8,"a":[{"id":9}]},"method":"id","id":7,', 7),
        (b'{"params":{"id":8,"a":"', None),
        (b'{"id":12', None),  # it may go on
        (b'{"id":1.5,"a":1', None),
        (b'{"id":1e3,"a":1', None),
        (b'{"id":true,"a":1', None),
        (b'{"id":{"id":1},"a":1', None),
        (b'[{"id":7,"a":1}', None),
        (b'{"x":"\\"id\\":7,","id":"8","a":1', "8"),
        (b'{"id":99999999999999999999,"a":1', None),
        (b'{"id":"' + b"x" * 300 + b'","a":1', None),
        (b"", None),
        (b"\xff\xfe{", None),
        (b'{"a":"' + b"x" * ID_WITHIN + b'","id":7,"b":1', None),
    ],
)
def test_the_id_of_a_message_is_found_at_its_beginning(data: bytes, found: object) -> None:
    assert id_at_beginning(data) == found
