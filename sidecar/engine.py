"""Selects the engine of warm requests: Python's alone, or also the native one if its wheel is installed (ADR 0085).

The engine in Python is the reference and serves every request. The native engine takes requests with a certain head,
permit and answer; it leaves all others to Python before it sends a byte.
"""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

from delegation_core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from sidecar.wire.scheduling import WriteBatch

EngineChoice = Literal["auto", "python", "native"]
Engine = Literal["python", "native"]

# Bytes that the native engine stores beside a permit or an issued token: the text of a record (up to 1,436 bytes:
# `MAX_TEXT` without the marks of the varying values), the names of added fields, the objects, and the overhead of the C
# library. Values of added fields are extra. tests/proxy/test_prepared_bytes.py measures between half of it and all.
PREPARED_BYTES: Final = 2048
PREPARED_CALL_BYTES: Final = 3072  # of an issued token: also the facts of the request that uses it
PLANNED_BYTES: Final = 640  # of a plan: the place and key of its issued token, and the facts that both depend on

_MODULE: Final = "delegation_sidecar_native"
_VERSION: Final = "0.1.0"  # a wheel of another version is not used
# Increase it here and in ``lib.rs`` when an attribute that one engine reads from the other changes name or meaning.
_INTERFACE: Final = 3
# Older builds of this version lack some of these.
_CALLED: Final = (
    "Call", "Finished", "InboundGate", "Kind", "OutboundGate", "PlannedCall", "Prepared",
    "WriteBatch", "link",
)  # fmt: skip


@cache
def native_module() -> ModuleType | None:
    """Return the native engine's module; None if no wheel of this version and interface is installed."""
    try:
        module = import_module(_MODULE)
    except ImportError:
        return None
    speaks = getattr(module, "__version__", None), getattr(module, "INTERFACE", None)
    fits = speaks == (_VERSION, _INTERFACE) and all(hasattr(module, name) for name in _CALLED)
    return module if fits else None


def engine_of(choice: EngineChoice) -> Engine:
    """Return the engine for the setting ``choice``; ``auto`` is the native engine if it is installed.

    Raises:
        ConfigError: ``choice`` is the native engine, which is not installed.
    """
    if choice == "python":
        return "python"
    if native_module() is not None:
        return "native"
    if choice == "native":
        wrong = f"is native, and the wheel delegation-sidecar-native {_VERSION} is not installed for this Python"
        raise ConfigError([Problem("engine", wrong, "install the wheel (make native), or set engine: auto")])
    return "python"


def native_writes(most: int) -> WriteBatch:
    """Return the native engine's batch of at most ``most`` writes; it behaves as ``WriteBatch``.

    Raises:
        LookupError: the native engine is not installed.
    """
    batch: WriteBatch = require_native().WriteBatch(most, asyncio.get_running_loop, logging.getLogger("sidecar.wire"))
    return batch


def require_native() -> ModuleType:
    """Return the native engine's module.

    Raises:
        LookupError: no matching wheel is installed.
    """
    module = native_module()
    if module is None:
        raise LookupError("the native engine is not installed")
    return module
