"""``python -m benchmarks.crowd``: idle connections that only occupy a place, until standard input ends.

``--count`` of them are open at all times: a closed connection is opened again at once. Each sends ``--says``
(hexadecimal) when it is connected, and nothing more. Once all have been connected, the program writes a line.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import select
import socket
import ssl
import sys
from typing import Final

from benchmarks.scenarios import Beside
from benchmarks.world import SERVER_NAME

_OPENING_AT_ONCE: Final = 200  # at the start; more at once would fill the accept queue of the listener
_UNDER_WAY: Final = (0, errno.EINPROGRESS)
_READ: Final = 65536


class Crowd:
    """``count`` connections to ``where``, from ``hosts`` source addresses in turn."""

    def __init__(self, where: tuple[str, int], *, count: int, says: bytes, hosts: int) -> None:
        self._where = where
        self._count = count
        self._says = says
        self._hosts = hosts
        self._poller = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._connected: set[int] = set()
        self._opened = 0
        self.reopened = 0

    def stay(self) -> None:
        """Run until standard input ends."""
        told = False
        self._poller.register(0, select.EPOLLIN)
        while True:
            while len(self._open) < self._count and len(self._open) - len(self._connected) < _OPENING_AT_ONCE:
                self._open_one()
            for descriptor, _ in self._poller.poll():
                if descriptor == 0:
                    return
                self._look(descriptor)
            if not told and len(self._connected) >= self._count:
                told = True
                sys.stdout.write("there\n")
                sys.stdout.flush()

    def _open_one(self) -> None:
        one = socket.socket()
        one.setblocking(False)  # noqa: FBT003 - the standard library's signature
        one.bind((f"127.0.0.{1 + self._opened % self._hosts}", 0))
        self._opened += 1
        if one.connect_ex(self._where) not in _UNDER_WAY:
            one.close()
            return
        self._open[one.fileno()] = one
        self._poller.register(one.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def _look(self, descriptor: int) -> None:
        one = self._open[descriptor]
        try:
            if descriptor not in self._connected:
                one.send(self._says)  # an empty write tests the connection
                self._connected.add(descriptor)
            while one.recv(_READ):
                pass
        except BlockingIOError:
            return
        except OSError:
            pass
        self._connected.discard(descriptor)
        del self._open[descriptor]
        one.close()
        self.reopened += 1


def said(what: Beside) -> bytes:
    """Return the bytes that each connection of such a flood sends."""
    outgoing = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=SERVER_NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    return {"hello": hello, "hello begun": hello[:-1], "clear text": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"}.get(
        what, b""
    )


def main() -> None:
    """Run a flood, and print at the end how many connections were opened again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__)
    parser.add_argument("--connect", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--says", type=bytes.fromhex, default=b"")
    parser.add_argument("--hosts", type=int, default=1)
    arguments = parser.parse_args()
    host, _, port = arguments.connect.rpartition(":")
    crowd = Crowd((host, int(port)), count=arguments.count, says=arguments.says, hosts=arguments.hosts)
    crowd.stay()
    print(crowd.reopened)


if __name__ == "__main__":
    main()
