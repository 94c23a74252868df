from __future__ import annotations

import base64
import os

import pytest

from sidecar.proxy import unguessable
from sidecar.proxy.unguessable import random_base64url, random_hex


def test_it_is_lower_case_hex_of_the_length_asked_for() -> None:
    for count in (1, 16, 32, 4096, 5000):
        text = random_hex(count)
        assert len(text) == 2 * count
        assert set(text) <= set("0123456789abcdef")


def test_the_url_safe_form_says_the_same_octets(monkeypatch: pytest.MonkeyPatch) -> None:
    unguessable._block.forget()
    monkeypatch.setattr(os, "urandom", lambda count: bytes(range(256)) * (count // 256))
    try:
        texts = [random_base64url(32) for _ in range(8)]
    finally:
        unguessable._block.forget()
    assert b"".join(base64.urlsafe_b64decode(text + "=") for text in texts) == bytes(range(256))
    assert {len(text) for text in texts} == {43}


def test_no_octet_of_a_block_is_given_twice() -> None:
    texts = [random_hex(16) for _ in range(2000)]
    assert len(set(texts)) == len(texts)


def test_blocks_come_from_the_system_and_every_octet_of_them_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[bytes] = []

    def urandom(count: int) -> bytes:
        blocks.append(bytes([len(blocks) + 1]) * count)
        return blocks[-1]

    unguessable._block.forget()
    monkeypatch.setattr(os, "urandom", urandom)
    try:
        assert [random_hex(2048) for _ in range(4)] == ["01" * 2048, "01" * 2048, "02" * 2048, "02" * 2048]
    finally:
        unguessable._block.forget()


def test_a_forked_process_gives_nothing_that_its_parent_gives() -> None:
    random_hex(1)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, random_hex(32).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(ours, 64).decode() != random_hex(32)
    os.close(ours)
    os.close(theirs)
