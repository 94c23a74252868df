from __future__ import annotations

from typing import Any

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.push_urls import check_push_urls, parse_push_url
from tests.core.world import reason_of

ALLOWED = (parse_push_url("https://hooks.acme.example/a2a"), parse_push_url("http://127.0.0.1:9000/in/"))
CREATE = "CreateTaskPushNotificationConfig"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.acme.example/a2a",
        "https://hooks.acme.example:443/a2a/7?tenant=x",
        "http://127.0.0.1:9000/in/7",
    ],
)
def test_an_origin_and_a_path_of_the_list_pass(url: str) -> None:
    assert reason_of(check_push_urls, CREATE, {"url": url}, ALLOWED) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.acme.example/a2ab",
        "https://hooks.acme.example/",
        "https://hooks.acme.example/a2a/../admin",
        "https://hooks.acme.example/a2a/%2e%2e/admin",
        "https://hooks.acme.example/%612a",
        "https://hooks.acme.example/a2a#x",
        "https://hooks.acme.example/a2a#",
        "https://hooks.acme.example/a2a?\\@evil.example/",
        "http://hooks.acme.example/a2a",
        "https://hooks.acme.example:8443/a2a",
        "https://hooks.acme.example:0/a2a",
        "https://hooks.acme.example:00443/a2a",
        "https://hooks.acme.example.evil.example/a2a",
        "https://hooks.acme.example@evil.example/a2a",
        "https://hooks.acme.example\\@evil.example/a2a",
        "HTTPS://hooks.acme.example/a2a",
        "https://hooks.acme.example/a2a\r\n",
        " https://hooks.acme.example/a2a",
        "http://127.0.0.1:9000/in",
        "",
        None,
        7,
        {"x": 1},
    ],
)
def test_any_other_url_is_refused(url: object) -> None:
    with pytest.raises(Denied) as refused:
        check_push_urls(CREATE, {"url": url}, ALLOWED)
    assert refused.value.reason is Reason.PUSH_URL_REFUSED
    assert str(url) not in refused.value.detail or not str(url)


@pytest.mark.parametrize(
    ("operation", "params"),
    [
        (CREATE, lambda url: {"taskId": "7", "pushNotificationConfig": {"url": url}}),  # 0.3
        (CREATE, lambda url: {"config": {"push_notification_config": {"url": url}}}),  # its HTTP+JSON
        (CREATE, lambda url: {"id": "1", "taskId": "7", "URL": url}),
        ("SendMessage", lambda url: {"message": {}, "configuration": {"taskPushNotificationConfig": {"url": url}}}),
        ("SendMessage", lambda url: {"message": {}, "configuration": {"pushNotificationConfig": {"url": url}}}),
        ("SendStreamingMessage", lambda url: {"configuration": {"push_notification": {"url": url}}}),
    ],
)
def test_the_url_is_found_wherever_a_version_has_it(operation: str, params: Any) -> None:
    check_push_urls(operation, params("https://hooks.acme.example/a2a/1"), ALLOWED)
    with pytest.raises(Denied):
        check_push_urls(operation, params("https://evil.example/"), ALLOWED)
    with pytest.raises(Denied):
        check_push_urls(operation, params("https://hooks.acme.example/a2a/1"), ())


def test_content_of_a_message_and_other_operations_are_not_searched() -> None:
    parts = {"message": {"parts": [{"url": "https://evil.example/file"}]}}
    assert reason_of(check_push_urls, "SendMessage", parts, ()) is None
    assert reason_of(check_push_urls, "GetTask", {"url": "https://evil.example/"}, ()) is None


@pytest.mark.parametrize(
    "text", ["hooks.example", "https://Hooks.example/", "https://a/b#c", "https://a//b", "ftp://a/"]
)
def test_a_url_of_the_settings_has_one_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has) "):
        parse_push_url(text)
