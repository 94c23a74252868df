"""The detector library, with its rules compiled once for all tests."""

from __future__ import annotations

import pytest

from delegation_audit.credentials.detector import Kingfisher


@pytest.fixture(scope="session")
def kingfisher() -> Kingfisher:
    return Kingfisher()  # the user's cache folder: compiling the rules takes ten seconds
