"""Checks at the start of a process that serves, and prints the problems of its settings."""

from __future__ import annotations

import resource
import sys
from typing import Final

from delegation_core.errors import ConfigError, Problem
from sidecar.identity.source_factory import IdentitySettings

_MIB: Final = 1024 * 1024
_ADDRESSES: Final = 256 * _MIB  # 225 to 330 MiB measured at the start; with less a process soon fails
_GRPC_ADDRESSES: Final = 2048 * _MIB  # the dozen threads of gRPC took 700 MiB, and starts failed below 800


def require_address_space(identity: IdentitySettings) -> None:
    """Check that the limit of address space (RLIMIT_AS) is large enough. At the limit, gRPC aborts without a message.

    Raises:
        ConfigError: the limit is too low.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    by_grpc = identity.py_spiffe
    needed = _GRPC_ADDRESSES if by_grpc else _ADDRESSES
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return
    what = "gRPC, of identity.source: py-spiffe," if by_grpc else "this process"
    wrong = f"is {limit // _MIB} MiB of addresses, and {what} needs {needed // _MIB} (most of them never become memory)"
    fix = "remove the limit (`ulimit -v unlimited`, LimitAS=infinity) and limit the memory of the cgroup"
    raise ConfigError([Problem("RLIMIT_AS", wrong, f"{fix}; or remove identity.source" if by_grpc else fix)])


def refuse_settings(path: str, error: ConfigError) -> int:
    """Print every problem of the settings; return exit code 2."""
    print(f"{path} cannot be used:", file=sys.stderr)  # noqa: T201 - the command's own output
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)  # noqa: T201
    return 2
