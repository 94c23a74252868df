"""Documents of agents of A2A: their cards, and answers that make tasks; calls by gRPC; URLs that callers give them."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from delegation_core.a2a_grpc import METHODS, GrpcAnswerReader, message_of
from delegation_core.a2a_grpc_lists import cut_tasks
from delegation_core.a2a_tasks import AnswerReader, Shown
from delegation_core.agent_card import read_card
from delegation_core.agent_card_grpc import rewritten
from delegation_core.errors import Denied, Reason
from delegation_core.grpc_messages import one_message, written
from delegation_core.protobuf import Field, Kind, Schema
from delegation_core.push_urls import PushUrl, check_push_urls, parse_push_url
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
    makers = (
        lambda: AnswerReader(events=False),
        lambda: AnswerReader(events=True),
        GrpcAnswerReader,
        lambda: GrpcAnswerReader([b"gzip"]),
    )
    for make in makers:
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


def _several(**fields: Any) -> Field:
    return Field(Kind.MESSAGE, "several", many=True, schema={int(name[1:]): field for name, field in fields.items()})


_TEXT: Final = Field(Kind.TEXT, "text")
_SKILL: Final = _several(f8=Field(Kind.OPAQUE, many=True))
_SCHEME: Final = _several(f1=_TEXT)
_CARDS: Final = {
    False: message_class({3: _several(f1=_TEXT), 8: _SCHEME, 12: _SKILL, 13: Field(Kind.OPAQUE, many=True)}),
    True: message_class({3: _TEXT, 15: _several(f1=_TEXT), 8: _SCHEME, 12: _SKILL, 17: Field(Kind.OPAQUE, many=True)}),
}
_LIST: Final = message_class({1: _several(f1=_TEXT, f2=_TEXT), 2: _TEXT, 4: Field(Kind.NUMBER)})


def grpc_card(data: bytes) -> None:
    """To the official parser a card by gRPC has no interface elsewhere, no signature and no foreign scheme."""
    for first_version, library in _CARDS.items():
        try:
            content = rewritten(
                written(data),
                lambda card: card.rewritten(lambda path: f"{HERE}{path}", mesh=True, grpc=lambda _: HERE[8:]),
                first_version=first_version,
            )
        except Denied as error:
            assert error.reason is Reason.CARD_REFUSED
            quiet(error)
            continue
        card: Any = library()
        card.ParseFromString(one_message(content))
        urls = [card.f3, *(one.f1 for one in card.f15)] if first_version else [one.f1 for one in card.f3]
        assert urls
        assert all(url.removeprefix("https://").partition("/")[0] == HERE[8:] for url in urls)
        assert [one.f1 for one in card.f8] == ["mtls", "delegation"]
        assert not any(one.f8 for one in card.f12)
        assert not (card.f17 if first_version else card.f13)


def grpc_list(data: bytes) -> None:
    """A list that is cut has the tasks of its reader, all of them and no others, to the official parser."""
    content = written(data)
    try:
        cut = one_message(cut_tasks(content, lambda task, _context: len(task) % 2 > 0, first_page=True))
    except Denied as error:
        assert error.reason is Reason.LIST_UNREADABLE
        quiet(error)
        return
    before: Any = _LIST()
    after: Any = _LIST()
    before.ParseFromString(data)
    after.ParseFromString(cut)
    assert [one.f1 for one in after.f1] == [one.f1 for one in before.f1 if len(one.f1) % 2]
    assert after.f4 in {0, len(after.f1)}
    assert after.f2 == before.f2
    assert cut == one_message(cut_tasks(written(cut), lambda *_: True, first_page=True))


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
