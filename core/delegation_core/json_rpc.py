"""Strict JSON-RPC 2.0 parser: refuses any message in which an agent's parser might find another operation.

Parsers disagree about duplicate members, members that differ only in case (Go's standard library treats them as
equal), several documents in one body, and batches. All of these are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.message_json import parse_message_object
from delegation_core.strict_json import StrictJsonError

_OF_REQUEST: Final = frozenset({"jsonrpc", "id", "method", "params"})
_OF_RESPONSE: Final = frozenset({"jsonrpc", "id", "result", "error"})

_LONGEST_ID: Final = 256  # characters; the error response repeats the id
_MOST_ID: Final = 2**53  # below it all parsers read the same number (RFC 7493 section 2.2)

MessageId = str | int | None

METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602


@dataclass(frozen=True, slots=True)
class RpcMessage:
    """One message: a request, a notification (``id`` None), or a response (``method`` None)."""

    id: MessageId
    method: str | None
    params: Mapping[str, object]


class MessageRefused(Denied):
    """A refused message. ``id``: the message's id, if known, for the error response.

    ``code``: the protocol's error number, if it differs from the default of the reason. ``facts``: the protocol's
    ``data`` members for this error.
    """

    def __init__(
        self,
        detail: str,
        *,
        message_id: MessageId = None,
        reason: Reason = Reason.OPERATION_MALFORMED,
        code: int | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(reason, detail)
        self.id, self.code, self.facts = message_id, code, facts or {}


def parse_rpc(body: bytes, *, max_bytes: int) -> RpcMessage:
    """Parse a body that is one JSON-RPC message.

    Raises:
        MessageRefused: OPERATION_MALFORMED unless the body is one strict JSON object and valid JSON-RPC 2.0.
    """
    message = parse_body(body, max_bytes=max_bytes)
    # Some parsers cut a name at NUL, ignore case, or merge the members of "__proto__".
    if not message.keys() <= (_OF_REQUEST if "method" in message else _OF_RESPONSE):
        raise MessageRefused("the message has a member unknown to JSON-RPC")
    if message.get("jsonrpc") != "2.0":
        raise MessageRefused("not JSON-RPC 2.0")
    answers = ("result" in message) + ("error" in message)
    message_id = _id(message, needed=bool(answers))
    method, params = message.get("method"), message.get("params", {})
    if "method" in message and (not isinstance(method, str) or not method):
        raise MessageRefused("method is not a string, or is empty", message_id=message_id)
    if "method" not in message and answers != 1:
        raise MessageRefused(
            "the message has no method, and not exactly one of result and error", message_id=message_id
        )
    if not isinstance(params, dict):
        raise MessageRefused("params is not an object", message_id=message_id)
    return RpcMessage(message_id, method if isinstance(method, str) else None, params)


def parse_plain_body(body: bytes, *, max_bytes: int) -> dict[str, object]:
    """Parse an HTTP+JSON body: one object that is not a JSON-RPC message.

    An agent may serve JSON-RPC at HTTP+JSON paths too, and would execute the method in the body.

    Raises:
        MessageRefused: OPERATION_MALFORMED for any other body.
    """
    members = parse_body(body, max_bytes=max_bytes)
    one_spelling(members, frozenset())
    if not {"jsonrpc", "method"}.isdisjoint(map(str.casefold, members)):
        raise MessageRefused("a JSON-RPC message was sent to an HTTP+JSON path")
    return members


def parse_body(body: bytes, *, max_bytes: int) -> dict[str, object]:
    """Parse one strict JSON object.

    Raises:
        MessageRefused: OPERATION_MALFORMED for any other body.
    """
    try:
        return parse_message_object(body, max_bytes=max_bytes)
    except StrictJsonError as error:
        raise MessageRefused(str(error)) from None


Fold = Callable[[str], str]
"""Maps names that some parser treats as equal to the same text. Must be deterministic."""


def without_marks(name: str) -> str:
    """Fold a name as Protobuf's JSON parsers do, to which ``task_id`` and ``taskId`` are equal."""
    return name.replace("_", "").casefold()


def one_spelling(
    members: Mapping[str, object],
    decisive: frozenset[str],
    *,
    message_id: MessageId = None,
    fold: Fold = str.casefold,
) -> None:
    """Refuse an object with ambiguous member names.

    Ambiguous are two names that ``fold`` makes equal, another spelling of a name in ``decisive`` (the names that are
    read), a name with unprintable characters, and ``__proto__``. ``fold`` is a cache key: pass a module-level function.

    Raises:
        MessageRefused: OPERATION_MALFORMED.
    """
    spelled = (tuple(members), decisive, fold)
    if spelled in _SOUND:
        return
    if "__proto__" in members or not all(map(str.isprintable, members)):
        raise MessageRefused("some parsers read the name of a member differently", message_id=message_id)
    folded = {name: fold(name) for name in members}
    if len(set(folded.values())) != len(folded):
        raise MessageRefused("two members whose names differ in case alone", message_id=message_id)
    read = _FOLDED.get((decisive, fold))
    if read is None:
        read = _FOLDED[decisive, fold] = frozenset(map(fold, decisive))
    if any(name not in decisive and plain in read for name, plain in folded.items()):
        raise MessageRefused("a member in another spelling", message_id=message_id)
    if sum(map(len, members)) <= _LONGEST_SOUND:
        if len(_SOUND) >= _MOST_SOUND:
            _SOUND.clear()
        _SOUND.add(spelled)


_SOUND: Final[set[tuple[tuple[str, ...], frozenset[str], Fold]]] = set()  # cache of accepted sets of names
_MOST_SOUND: Final = 512
_LONGEST_SOUND: Final = 256  # characters of all names together
_FOLDED: Final[dict[tuple[frozenset[str], Fold], frozenset[str]]] = {}  # one entry for each constant set of names


ID_WITHIN: Final = 4096  # bytes of an oversized message that are searched for its id
_lexeme: Final = re.compile(
    r'[ \t\r\n]*+("(?:[^"\\\x00-\x1f]|\\.)*+"|-?[0-9]++(?![.eE])|[\[\]{}:,]|[^\[\]{}:,"\s]++)', re.DOTALL
).match


def id_at_beginning(data: bytes) -> MessageId:
    """Return the id of a message from its first ``ID_WITHIN`` bytes; None if they have no valid top-level id."""
    text, at, depth, key = data[:ID_WITHIN].decode("utf-8", "ignore"), 0, 0, ""
    before = ""
    while (found := _lexeme(text, at)) is not None and found.end() < len(text):
        at, one = found.end(), found[1]
        if depth == 1 and before == ":" and key == '"id"':
            return _id_of(one)
        depth += (one in "{[") - (one in "}]")
        key, before = before if one == ":" else key, one
    return None


def _id_of(value: str) -> MessageId:
    try:
        return _id({"id": json.loads(value)}, needed=True)
    except (ValueError, MessageRefused):
        return None


def _id(message: Mapping[str, object], *, needed: bool) -> MessageId:
    if "id" not in message:
        if needed:
            raise MessageRefused("a result without an id")
        return None
    message_id = message["id"]
    if isinstance(message_id, bool) or not isinstance(message_id, str | int):
        raise MessageRefused("id is neither a string nor an integer")
    if isinstance(message_id, int) and abs(message_id) >= _MOST_ID:
        raise MessageRefused("id is too large")
    if isinstance(message_id, str) and len(message_id) > _LONGEST_ID:
        raise MessageRefused("id is too long")
    return message_id
