"""The native engine in tests: both engines where its wheel is installed, else the one in Python alone."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.engine import native_module

needs_native = pytest.mark.skipif(
    native_module() is None, reason="the wheel of the native engine is not installed: make native"
)


def module() -> Any:
    """Return the native engine's module."""
    found = native_module()
    assert found is not None
    return found
