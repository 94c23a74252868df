"""Documents of agents of A2A: their cards, and answers that make tasks; and URLs that callers give them."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from sidecar.delegation.a2a_tasks import AnswerReader
from sidecar.delegation.agent_card import read_card
from sidecar.delegation.push_urls import PushUrl, check_push_urls, parse_push_url
from sidecar.errors import Denied, Reason
from tests.fuzz.properties import quiet

HERE: Final = "https://writer.mesh:7443"
LISTED: Final = PushUrl("https", "hooks.acme.example", 443, "/a2a")
_SCHEMES: Final = {"security", "securityrequirements", "securityschemes"}
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
    for events in (False, True):
        found = set()
        for size in (1, 5, len(data) or 1):
            reader = AnswerReader(events=events)
            told = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
            told += reader.end()
            assert all(one.task is None for one in told[:-1])
            found.add(tuple(told))
        assert len(found) == 1


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
