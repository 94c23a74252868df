from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable

import pytest

from sidecar.proxy.unguessable import Unguessable, base64url, random_128, random_258


@pytest.mark.parametrize(
    ("take", "form"),
    [(random_128, r"[0-9a-f]{32}"), (random_258, r"[A-Za-z0-9_-]{43}")],
    ids=["hex", "base64url"],
)
def test_texts_have_their_form_and_differ(take: Callable[[], str], form: str) -> None:
    texts = [take() for _ in range(2000)]
    assert all(re.fullmatch(form, text) for text in texts)
    assert len(set(texts)) == len(texts)


def test_the_url_safe_form_says_the_same_octets() -> None:
    octets = bytes(range(256))
    assert base64.urlsafe_b64decode(base64url(octets) + "==") == octets
    assert "=" not in base64url(octets)


class System:
    """A source of bits that remembers what it gave."""

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
    take = Unguessable(chars, spell).take
    texts = [take() for _ in range(2 * (len(spell(bytes(4096))) // chars))]
    assert len(system.blocks) == 2
    spelled = [spell(block) for block in system.blocks]
    cut = [text[at : at + chars] for text in spelled for at in range(0, len(text) - chars + 1, chars)]
    assert sorted(texts) == sorted(cut)


def test_a_forked_process_gives_nothing_that_its_parent_gives() -> None:
    random_258()  # so that there is a block to share
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, random_258().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(ours, 64).decode() != random_258()
    os.close(ours)
    os.close(theirs)
