"""JSON-RPC 2.0: strict parser of one message, so that no agent can read another operation in the same bytes.

Parsers differ in what they make of two members with one name, of members that differ only in case (that of Go's
standard library takes them for the same), of several documents and of batches. All of these are refused here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.delegation.strict_json import StrictJsonError, parse_message_object
from sidecar.errors import Denied, Reason

_OF_REQUEST: Final = frozenset({"jsonrpc", "id", "method", "params"})
_OF_RESPONSE: Final = frozenset({"jsonrpc", "id", "result", "error"})

_LONGEST_ID: Final = 256  # characters; a refusal repeats it
_MOST_ID: Final = 2**53  # what every parser reads as the same number (RFC 7493 section 2.2)

MessageId = str | int | None

METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602


@dataclass(frozen=True, slots=True)
class RpcMessage:
    """One message: a request, a notification (without ``id``), or a response to one (``method`` None)."""

    id: MessageId
    method: str | None
    params: Mapping[str, object]


class MessageRefused(Denied):
    """A refused message; ``id``: the message's, if known, for the answer.

    ``code`` is the protocol's number for this error, where it is not the one of the reason. ``facts`` are what the
    protocol has clients read beside it.
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
    """Read the one message of a body.

    Raises:
        MessageRefused: OPERATION_MALFORMED, it is not one strict JSON object, or not JSON-RPC 2.0.
    """
    message = parse_body(body, max_bytes=max_bytes)
    # A parser may cut a name at NUL, ignore its case, or find the members of "__proto__".
    if not message.keys() <= (_OF_REQUEST if "method" in message else _OF_RESPONSE):
        raise MessageRefused("a member that JSON-RPC does not have")
    if message.get("jsonrpc") != "2.0":
        raise MessageRefused("not JSON-RPC 2.0")
    answers = ("result" in message) + ("error" in message)
    message_id = _id(message, needed=bool(answers))
    method, params = message.get("method"), message.get("params", {})
    if "method" in message and (not isinstance(method, str) or not method):
        raise MessageRefused("a method that is no text", message_id=message_id)
    if "method" not in message and answers != 1:
        raise MessageRefused("neither one method nor one result", message_id=message_id)
    if not isinstance(params, dict):
        raise MessageRefused("params are not an object", message_id=message_id)
    return RpcMessage(message_id, method if isinstance(method, str) else None, params)


def parse_plain_body(body: bytes, *, max_bytes: int) -> dict[str, object]:
    """Read the one object of a body that is no message of JSON-RPC.

    An agent may serve JSON-RPC at any path, those of HTTP+JSON included, and would execute the method in the body.

    Raises:
        MessageRefused: OPERATION_MALFORMED, it is anything else.
    """
    members = parse_body(body, max_bytes=max_bytes)
    one_spelling(members, frozenset())
    if not {"jsonrpc", "method"}.isdisjoint(map(str.casefold, members)):
        raise MessageRefused("a message of JSON-RPC at a path of HTTP+JSON")
    return members


def parse_body(body: bytes, *, max_bytes: int) -> dict[str, object]:
    """Read one JSON object.

    Raises:
        MessageRefused: OPERATION_MALFORMED, the body is anything else.
    """
    try:
        return parse_message_object(body, max_bytes=max_bytes)
    except StrictJsonError as error:
        raise MessageRefused(str(error)) from None


Fold = Callable[[str], str]
"""Makes one name of those that some parser takes for the same."""


def without_marks(name: str) -> str:
    """Fold a name as parsers of Protobuf's JSON do: to them ``task_id`` is ``taskId``."""
    return name.replace("_", "").casefold()


def one_spelling(
    members: Mapping[str, object],
    decisive: frozenset[str],
    *,
    message_id: MessageId = None,
    fold: Fold = str.casefold,
) -> None:
    """Refuse an object with ambiguous member names: two names that differ only in case.

    So is a name with characters that do not print, which a parser may cut at NUL, and ``__proto__``. ``decisive`` are
    the names that are read: these may be spelled in no other way. ``fold``: a constant function.

    Raises:
        MessageRefused: OPERATION_MALFORMED, so it is.
    """
    spelled = (tuple(members), decisive, fold)
    if spelled in _SOUND:
        return
    if "__proto__" in members or not all(map(str.isprintable, members)):
        raise MessageRefused("a member whose name has another meaning to some parsers", message_id=message_id)
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


_SOUND: Final[set[tuple[tuple[str, ...], frozenset[str], Fold]]] = set()  # names that were found sound: most are alike
_MOST_SOUND: Final = 512
_LONGEST_SOUND: Final = 256  # characters of all names together
_FOLDED: Final[dict[tuple[frozenset[str], Fold], frozenset[str]]] = {}  # one entry for each constant set of names


ID_WITHIN: Final = 4096  # bytes at the beginning of a message that is too long, in which its id is looked for
_lexeme: Final = re.compile(
    r'[ \t\r\n]*+("(?:[^"\\\x00-\x1f]|\\.)*+"|-?[0-9]++(?![.eE])|[\[\]{}:,]|[^\[\]{}:,"\s]++)', re.DOTALL
).match


def id_at_beginning(data: bytes) -> MessageId:
    """Return the id of a message by its beginning; None if there is no valid one."""
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
        raise MessageRefused("an id is a text or an integer")
    if isinstance(message_id, int) and abs(message_id) >= _MOST_ID:
        raise MessageRefused("an id is too large")
    if isinstance(message_id, str) and len(message_id) > _LONGEST_ID:
        raise MessageRefused("an id is too long")
    return message_id
