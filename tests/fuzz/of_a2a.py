"""Documents of agents of A2A: their cards, and answers that make tasks; calls by gRPC; URLs that callers give them."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from sidecar.delegation.a2a_grpc import METHODS, GrpcAnswerReader, message_of
from sidecar.delegation.a2a_tasks import AnswerReader, Shown
from sidecar.delegation.agent_card import read_card
from sidecar.delegation.grpc_messages import written
from sidecar.delegation.protobuf import Schema
from sidecar.delegation.push_urls import PushUrl, check_push_urls, parse_push_url
from sidecar.errors import Denied, Reason
from tests.fakes.protobuf_schema import message_class, read_by_library, without_empty
from tests.fuzz.properties import quiet

HERE: Final = "https://writer.mesh:7443"
LISTED: Final = PushUrl("https", "hooks.acme.example", 443, "/a2a")
_SCHEMES: Final = {"security", "securityrequirements", "securityschemes"}
_METHODS: Final = [method for methods in METHODS.values() for method in methods.values()]
_LIBRARY: Final = [message_class(method.request) for method in _METHODS]
_INTERFACES: Final = {"supportedinterfaces", "additionalinterfaces"}


def agent_card(data: bytes) -> None:
    """A rewritten card has no interface elsewhere, no signature and no foreign scheme, in whatever spelling."""
    for mesh in (False, True):
        try:
            made = read_card(data).rewritten(lambda path: f"{HERE}{path}", mesh=mesh)
        except Denied as error:
            assert error.reason is Reason.CARD_REFUSED
            quiet(error)
            continue
        urls = 0
        for name, value in made.items():
            plain = name.replace("_", "").casefold()
            assert plain not in {"signatures"}
            assert mesh or plain not in _SCHEMES
            found: list[Any] = [value] if plain == "url" else []
            if plain in _INTERFACES and value is not None:
                found += [one[key] for one in value for key in one if key.casefold() == "url"]
            assert all(url.startswith(HERE) and urlsplit(url).netloc == "writer.mesh:7443" for url in found)
            urls += len(found)
        assert urls


def task_answer(data: bytes) -> None:
    """The reading of a stream or an answer does not depend on how its bytes are cut, and ends with its task."""
    for make in (lambda: AnswerReader(events=False), lambda: AnswerReader(events=True), GrpcAnswerReader):
        found = set[tuple[Shown, ...]]()
        for size in (1, 5, len(data) or 1):
            reader = make()
            told = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
            told += reader.end()
            assert all(one.task is None for one in told[:-1])
            found.add(tuple(told))
        assert len(found) == 1


def grpc_call(data: bytes) -> None:
    """The official parser reads what is read here in the message of a call: in whichever method, by the first byte."""
    if not data:
        return
    method, library = _METHODS[data[0] % len(_METHODS)], _LIBRARY[data[0] % len(_METHODS)]
    try:
        found = message_of(written(data[1:]), method).params
    except Denied as error:
        assert error.reason is Reason.OPERATION_MALFORMED
        quiet(error)
        return
    assert without_empty(dict(found)) == without_empty(_read(library, method.request, data[1:]))


def _read(library: Any, schema: Schema, message: bytes) -> dict[str, object]:
    found = read_by_library(library, schema, message)
    assert found is not None, "the official parser refuses the message"
    return found


def push_url(data: bytes) -> None:
    """A URL that passes leads to the listed origin and path, as another parser reads it."""
    text = data.decode("latin-1")
    try:
        check_push_urls("CreateTaskPushNotificationConfig", {"url": text}, (LISTED,))
    except Denied as error:
        assert error.reason is Reason.PUSH_URL_REFUSED
        quiet(error)
        return
    parts = urlsplit(text)
    assert (parts.scheme, parts.hostname, parts.port or 443, parts.username) == ("https", LISTED.host, 443, None)
    assert f"{parts.path}/".startswith("/a2a/")
    assert not {"\\", "#", " "} & set(text)
    assert not {".", ".."} & set(parts.path.split("/"))
    assert parse_push_url(text) == parse_push_url(text.partition("?")[0])
