from __future__ import annotations

import pytest

from sidecar_dev.curl import JSON_SINCE, curl_version, version_text


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1 OpenSSL/3.0.22\nRelease-Date: 2023-02-20\n", (7, 88)),
        ("curl 8.5.0 (aarch64-unknown-linux-gnu)", (8, 5)),
        ("curl 7.68.0 (x86_64-pc-linux-gnu)", (7, 68)),
        ("BusyBox v1.36.1 multi-call binary", None),
        ("xcurl 7.88.1", None),
        ("curl 788", None),
        ("", None),
    ],
)
def test_the_version_is_read_from_what_curl_prints(text: str, version: tuple[int, int] | None) -> None:
    assert curl_version(text) == version


def test_versions_compare_by_number() -> None:
    assert curl_version("curl 7.9.8 (i686)") < JSON_SINCE <= curl_version("curl 7.82.0") < (7, 100)  # type: ignore[operator]
    assert version_text(JSON_SINCE) == "7.82"
