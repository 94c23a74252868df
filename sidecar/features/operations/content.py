"""Fields about the content of an answer that is read or cut on its way: it must come whole, without content coding."""

from __future__ import annotations

from typing import Final

ASKED_FOR: Final = frozenset({b"accept-encoding", b"range", b"if-range", b"if-match", b"if-none-match"})
OF_OTHER_CONTENT: Final = frozenset(
    {b"accept-ranges", b"content-digest", b"content-md5", b"digest", b"etag", b"repr-digest"}
)
