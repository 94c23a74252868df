"""The engine of warm requests: Python's, or beside it a native one where its wheel is installed (ADR 0085).

The engine in Python is the reference and serves everything. The native one takes requests whose head, permit and
answer are certain, and leaves all others to it, before a byte has left.
"""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal, cast

from sidecar.errors import ConfigError, Problem

if TYPE_CHECKING:
    from sidecar.wire.scheduling import WriteBatch

EngineChoice = Literal["auto", "python", "native"]
Engine = Literal["python", "native"]

# What the native engine keeps beside a permit or an issued token, without the values of the fields that it adds: the
# text of a record (up to 1,436 bytes: `MAX_TEXT` without the marks of the varying values), the fields' names, the
# objects, and what the C library adds to each. Between half and all of it, by tests/proxy/test_prepared_bytes.py.
PREPARED_BYTES: Final = 2048
PREPARED_CALL_BYTES: Final = 3072  # of an issued token: the same, and the facts of the request that it was used for
PLANNED_BYTES: Final = 640  # beside a plan: where its issued token lies, its key there, and what both hold by

_MODULE: Final = "delegation_sidecar_native"
_VERSION: Final = "0.1.0"  # the one whose functions are called here: another wheel is not used
# Raised here and in ``lib.rs`` when an attribute that one engine uses of the other gets another name or meaning.
_INTERFACE: Final = 3
# Older builds of this version lack some.
_CALLED: Final = (
    "Call", "Finished", "InboundGate", "Kind", "OutboundGate", "PlannedCall", "Prepared",
    "WriteBatch", "link",
)  # fmt: skip


@cache
def native_module() -> ModuleType | None:
    """Return the native engine's module; None if no wheel of this version is installed, or it does not fit."""
    try:
        module = import_module(_MODULE)
    except ImportError:
        return None
    speaks = getattr(module, "__version__", None), getattr(module, "INTERFACE", None)
    fits = speaks == (_VERSION, _INTERFACE) and all(hasattr(module, name) for name in _CALLED)
    return module if fits else None


def engine_of(choice: EngineChoice) -> Engine:
    """Return the engine to run by a choice of the settings; ``auto`` is the native one where it is installed.

    Raises:
        ConfigError: the native engine is asked for, and is not installed.
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
    """Return a batch of at most so many writes by the native engine, which does as the one in Python.

    Raises:
        LookupError: it is not installed.
    """
    made = require_native().WriteBatch(most, asyncio.get_running_loop, logging.getLogger("sidecar.wire"))
    return cast("WriteBatch", made)


def require_native() -> ModuleType:
    """Return the native engine's module.

    Raises:
        LookupError: it is not installed.
    """
    module = native_module()
    if module is None:
        raise LookupError("the native engine is not installed")
    return module
