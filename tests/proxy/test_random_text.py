from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable

import pytest

from sidecar.proxy.journeys.random_text import base64url, random_128, random_258, texts


@pytest.mark.parametrize(
    ("take", "form"),
    [(random_128, r"[0-9a-f]{32}"), (random_258, r"[A-Za-z0-9_-]{43}")],
    ids=["hex", "base64url"],
)
def test_texts_have_their_form_and_differ(take: Callable[[], str], form: str) -> None:
    given = [take() for _ in range(2000)]
    assert all(re.fullmatch(form, text) for text in given)
    assert len(set(given)) == len(given)


def test_the_url_safe_form_says_the_same_octets() -> None:
    octets = bytes(range(256))
    assert base64.urlsafe_b64decode(base64url(octets) + "==") == octets
    assert "=" not in base64url(octets)


class System:
    """A source of bits that records its output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks: list[bytes] = []
        monkeypatch.setattr(os, "urandom", self)

    def __call__(self, count: int) -> bytes:
        start = len(self.blocks)
        self.blocks.append(
            b"".join(number.to_bytes(4, "big") for number in range(start * 4096, start * 4096 + count // 4))
        )
        return self.blocks[-1]


@pytest.mark.parametrize(("chars", "spell"), [(32, bytes.hex), (43, base64url)], ids=["hex", "base64url"])
def test_texts_come_from_the_system_and_no_bit_of_a_block_is_in_two_of_them(
    monkeypatch: pytest.MonkeyPatch, chars: int, spell: Callable[[bytes], str]
) -> None:
    system = System(monkeypatch)
    take = texts(chars, spell)
    given = [take() for _ in range(2 * (len(spell(bytes(4096))) // chars))]
    assert len(system.blocks) == 2
    spelled = [spell(block) for block in system.blocks]
    cut = [text[at : at + chars] for text in spelled for at in range(0, len(text) - chars + 1, chars)]
    assert given == cut


@pytest.mark.parametrize("taken", [1, 126, 127])
def test_a_forked_process_gives_nothing_that_its_parent_gives(taken: int) -> None:
    take = texts(43, base64url)  # 127 of a block
    for _ in range(taken):
        take()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, "".join(take() for _ in range(200)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    given = os.read(ours, 200 * 43).decode()
    assert len(given) == 200 * 43
    assert not {given[at : at + 43] for at in range(0, len(given), 43)} & {take() for _ in range(400)}
    os.close(ours)
    os.close(theirs)
