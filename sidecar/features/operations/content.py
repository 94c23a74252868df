"""Fields to drop if the sidecar parses or cuts an answer, which must be whole and without content coding.

``ASKED_FOR`` are fields of the request, ``OF_OTHER_CONTENT`` fields of the answer that describe its uncut content.
"""

from __future__ import annotations

from typing import Final

ASKED_FOR: Final = frozenset({b"accept-encoding", b"range", b"if-range", b"if-match", b"if-none-match"})
OF_OTHER_CONTENT: Final = frozenset(
    {b"accept-ranges", b"content-digest", b"content-md5", b"digest", b"etag", b"repr-digest"}
)
