"""``python -m tests.soak``: exit code 0 if nothing was lost and nothing grew."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.soak.soak import soak

WANTED = {"svid": 50, "authority": 5, "keys": 10, "reload": 20}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rate", type=int, default=200, help="requests a second; each makes one call out")
    parser.add_argument("--streams", type=int, default=4, help="event streams, and as many WebSockets")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave logs and records there (a short path)")
    arguments = parser.parse_args()
    with nullcontext(_made(arguments.keep)) if arguments.keep else TemporaryDirectory(prefix="sc-") as folder:
        report = asyncio.run(
            soak(
                Path(folder),
                seconds=arguments.minutes * 60,
                rate=arguments.rate,
                wanted=WANTED,
                streams=arguments.streams,
                workers=arguments.workers,
            )
        )
    sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
