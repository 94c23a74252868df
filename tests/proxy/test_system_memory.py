from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from sidecar import libc_memory
from sidecar.libc_memory import allocated_bytes, clean_files, forget_unused_code, give_back
from sidecar.proxy.listening.system_memory import (
    Cgroup,
    file_bytes,
    find_cgroup,
    memory_of,
    own_bytes,
)
from sidecar.wire.resolver import Resolver

MIB = 1024 * 1024
NO_LIMIT_1 = str(2**63 - 4096)
V2_STAT = f"anon {40 * MIB}\nfile {30 * MIB}\nshmem {2 * MIB}\nsock {5 * MIB}\nslab_reclaimable {1 * MIB}\n"
V1_STAT = f"cache 7\ntotal_cache {30 * MIB}\ntotal_rss {40 * MIB}\ntotal_shmem {2 * MIB}\n"


class Kernel:
    """A fake of the kernel's files about cgroups."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.cgroups = folder / "cgroup"
        self.membership = folder / "membership"

    def show(self, membership: str, files: Mapping[str, str]) -> None:
        self.membership.write_text(membership)
        for path, content in files.items():
            file = self.cgroups / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)

    def find(self) -> Cgroup | None:
        return find_cgroup(self.membership, self.cgroups)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


@pytest.mark.parametrize(
    ("membership", "files", "limit_mib"),
    [
        pytest.param("0::/\n", {"memory.max": f"{256 * MIB}\n"}, 256, id="v2-container"),
        pytest.param("0::/\n", {"memory.max": "max\n"}, None, id="v2-no-limit"),
        pytest.param("0::/\n", {"memory.max": f"{256 * MIB}", "memory.high": f"{200 * MIB}"}, 200, id="v2-high"),
        pytest.param("0::/a/b\n", {"a/memory.max": f"{256 * MIB}", "a/b/memory.max": "max"}, 256, id="v2-parent"),
        pytest.param("0::/a/b\n", {"a/memory.max": f"{9 * MIB}", "a/b/memory.max": f"{8 * MIB}"}, 8, id="v2-least"),
        pytest.param("0::/../x\n", {"memory.max": f"{256 * MIB}", "x/memory.max": "1"}, 256, id="v2-from-outside"),
        pytest.param("0::/\n", {"memory.max": "0"}, None, id="v2-nothing"),
        pytest.param(
            "4:memory:/pod/1\n0::/\n", {"memory/memory.limit_in_bytes": f"{256 * MIB}"}, 256, id="v1-container"
        ),
        pytest.param("4:memory:/\n", {"memory/memory.limit_in_bytes": NO_LIMIT_1}, None, id="v1-no-limit"),
        pytest.param(
            "9:cpu,memory:/a\n0::/\n",
            {"memory/memory.limit_in_bytes": NO_LIMIT_1, "memory/a/memory.limit_in_bytes": f"{64 * MIB}"},
            64,
            id="v1-joint",
        ),
        pytest.param("4:memory:/\n0::/\n", {"memory.max": f"{256 * MIB}"}, None, id="v1-is-not-v2"),
        pytest.param("nonsense\n", {}, None, id="nonsense"),
        pytest.param("0::/\n", {}, None, id="not-mounted"),
    ],
)
def test_the_limit_is_the_least_of_our_cgroup_and_those_around_it(
    kernel: Kernel, membership: str, files: Mapping[str, str], limit_mib: int | None
) -> None:
    kernel.show(membership, files)
    found = kernel.find()
    assert (found and found.limit_bytes) == (limit_mib and limit_mib * MIB)


def test_without_cgroups_there_is_no_limit(kernel: Kernel) -> None:
    assert kernel.find() is None


def test_what_the_kernel_can_take_back_is_not_used(kernel: Kernel) -> None:
    kernel.show("0::/\n", {"memory.max": f"{256 * MIB}", "memory.current": f"{80 * MIB}\n", "memory.stat": V2_STAT})
    found = kernel.find()
    assert found is not None
    assert found.used_bytes() == (80 - (30 - 2) - 1) * MIB


def test_version_1_counts_the_same(kernel: Kernel) -> None:
    files = {
        "memory/memory.limit_in_bytes": f"{256 * MIB}",
        "memory/memory.usage_in_bytes": f"{80 * MIB}",
        "memory/memory.stat": V1_STAT,
    }
    kernel.show("4:memory:/\n", files)
    found = kernel.find()
    assert found is not None
    assert found.used_bytes() == (80 - (30 - 2)) * MIB


@pytest.mark.parametrize("stat", ["anon", "anon x", None])
def test_what_cannot_be_read_is_not_guessed(kernel: Kernel, stat: str | None) -> None:
    files = {"memory.max": f"{256 * MIB}", "memory.current": "5"}
    kernel.show("0::/\n", files if stat is None else {**files, "memory.stat": stat})
    found = kernel.find()
    assert found is not None
    assert found.used_bytes() is None


def test_pages_that_are_shared_with_files_are_not_counted(tmp_path: Path) -> None:
    statm = tmp_path / "statm"
    statm.write_text("70000 15000 6000 1 0 18000 0\n")
    assert own_bytes(statm) == 9000 * resource.getpagesize()
    assert file_bytes(statm) == 6000 * resource.getpagesize()
    statm.write_text("70000")
    assert (own_bytes(statm), file_bytes(statm)) == (None, None)
    assert (own_bytes(tmp_path / "none"), file_bytes(tmp_path / "none")) == (None, None)


def test_each_of_several_processes_has_its_share_of_what_the_setting_allows() -> None:
    alone, one_of_two = memory_of(64, processes=1), memory_of(64, processes=2)
    assert alone is not None
    assert one_of_two is not None
    assert (alone.limit_bytes, one_of_two.limit_bytes) == (64 * MIB, 32 * MIB)
    alone.look()
    assert alone.used_bytes > MIB


def test_what_was_freed_is_given_back() -> None:
    give_back()  # otherwise free memory of other tests is used, and none is taken from the system
    before = own_bytes()
    pieces = [bytes(700) for _ in range(100_000)]  # too large for Python's own allocator, too small for a mapping
    kept = pieces[::1000]
    held = own_bytes()
    del pieces
    give_back()
    after = own_bytes()
    assert before is not None
    assert held is not None
    assert after is not None
    assert held - before > 60 * MIB
    assert after - before < (held - before) / 2
    assert len(kept) == 100


def test_large_pieces_can_be_kept_apart_so_that_they_go_back_whole() -> None:
    """In its own process: it changes the C library permanently."""
    code = """
from sidecar.libc_memory import keep_large_ones_apart
from sidecar.proxy.listening.system_memory import own_bytes
bytes(30_000_000)  # from now on glibc takes pieces of this size from its heap
keep_large_ones_apart()
before = own_bytes()
large, small = [], []
for _ in range(100):
    large.append(b"x" * 300_000)
    small.append(b"x" * 700)  # between them: a heap would keep all of it
del large
print(own_bytes() - before)
"""
    held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(held) < MIB


def test_what_the_c_library_gave_out_grows_and_falls_with_what_is_held() -> None:
    before = allocated_bytes()
    if before is None:
        pytest.skip("not glibc")
    held = [bytes(100_000) for _ in range(200)]
    most = allocated_bytes()
    assert most is not None
    assert most - before > 19_000_000
    del held
    after = allocated_bytes()
    assert after is not None
    assert most - after > 19_000_000


_MAPPINGS: Final = """\
1000-2000 r--p 00000000 08:01 7                                    /lib/data
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
2000-4000 r-xp 00001000 08:01 7                                    /lib/a library
Anonymous:             0 kB
Swap:                  0 kB
4000-5000 r--p 00003000 08:01 7                                    /lib/relocated
Anonymous:             4 kB
Swap:                  0 kB
5000-6000 rw-p 00004000 08:01 7                                    /lib/variables
Anonymous:             0 kB
Swap:                  0 kB
6000-7000 r--s 00000000 08:01 8                                    /shared
Anonymous:             0 kB
Swap:                  0 kB
7000-8000 r-xp 00000000 00:00 0                                    [vdso]
Anonymous:             0 kB
Swap:                  0 kB
8000-9000 r--p 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
9000-a000 ---p 00000000 08:01 7                                    /lib/gap
Anonymous:             0 kB
Swap:                  0 kB
b000-c000 r--p 00003000 08:01 9                                    /lib/relocated and swapped out
Anonymous:             0 kB
Swap:                  4 kB
c000-d000 r--p 00003000 08:01 9                                    /lib/swap is not told
Anonymous:             0 kB
a000-b000 r-xp 00000000 08:01 9                                    /lib/other
"""


def test_only_unchanged_pages_of_files_that_nobody_writes_may_be_unmapped() -> None:
    assert clean_files(_MAPPINGS) == [(0x1000, 0x2000), (0x2000, 0x4000)]
    assert clean_files("") == []
    assert clean_files("Anonymous: 0 kB\nnonsense") == []


def test_unused_code_is_unmapped_and_runs_again_when_it_is_used() -> None:
    """In its own process, as the kernel counts it."""
    code = """
import ssl, sqlite3, decimal
from pathlib import Path
from sidecar.libc_memory import forget_unused_code
def file_kib():
    return int(Path("/proc/self/status").read_text().partition("RssFile:")[2].split()[0])
before = file_kib()
forget_unused_code()
after = file_kib()
ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers("ECDHE+AESGCM")
assert sqlite3.connect(":memory:").execute("select 1 + 1").fetchone() == (2,)
print(before, after, decimal.Decimal(1) / 3)
forget_unused_code()
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(told[1]) < int(told[0]) * 0.6
    assert told[2].startswith("0.333")


@pytest.mark.parametrize("looking_up", [False, True])
def test_nothing_is_unmapped_while_a_lookup_may_load_a_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, looking_up: bool
) -> None:
    smaps = tmp_path / "smaps"
    smaps.write_text(_MAPPINGS)
    advised: list[tuple[object, ...]] = []
    monkeypatch.setattr(libc_memory, "_find_in_libc", lambda _name: lambda *given: advised.append(given))
    done = threading.Event()
    resolver = Resolver(lookup=lambda _host: [str(done.wait(10))])

    async def forget() -> None:
        if looking_up:
            asking = asyncio.ensure_future(resolver.addresses("idp.example"))
            await asyncio.sleep(0)
            assert resolver.running == 1
            forget_unused_code(smaps)
            done.set()
            await asking
        else:
            forget_unused_code(smaps)

    asyncio.run(forget())
    assert len(advised) == (0 if looking_up else 2)


def test_where_the_kernel_tells_no_mappings_nothing_is_unmapped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    advised: list[tuple[object, ...]] = []
    monkeypatch.setattr(libc_memory, "_find_in_libc", lambda _name: lambda *given: advised.append(given))
    forget_unused_code(tmp_path / "none")
    assert advised == []


def test_a_buffer_of_tls_goes_back_with_its_connection_whatever_lies_between() -> None:
    """In its own process: it changes the C library permanently."""
    code = """
import ctypes
from sidecar.libc_memory import keep_buffers_apart
from sidecar.proxy.listening.system_memory import own_bytes
bytes(30_000_000)  # from now on glibc takes pieces of this size from its heap
keep_buffers_apart()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
before, small, buffers = own_bytes(), [], []
for _ in range(200):
    buffers.append(libc.malloc(256 * 1024))
    ctypes.memset(buffers[-1], 1, 2000)
    small.append(b"x" * 20_000)
held = own_bytes()
for buffer in buffers:
    libc.free(ctypes.c_void_p(buffer))
print(held - before - 200 * 20_000, own_bytes() - before - 200 * 20_000)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(told[0]) < 200 * 6000  # a page of each; elsewhere often two
    assert int(told[1]) < 200 * 1000
