"""A part of a process that ends by itself ends the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("work", "code"), [("asyncio.sleep(0)", 1), ("asyncio.sleep(3600)", 0)])
def test_a_process_whose_part_ends_says_which_and_ends_with_exit_code_1(work: str, code: int) -> None:
    program = (
        "import asyncio\n"
        "from sidecar.background import Parts\n"
        "from sidecar.process import run_until_signal\n"
        "async def main(stop):\n"
        "    parts = Parts()\n"
        f"    parts.start('keys', {work})\n"
        "    asyncio.get_running_loop().call_later(0.2, stop.set)\n"
        "    try: await parts.run_until(stop)\n"
        "    finally: await parts.close()\n"
        "    return True\n"
        "raise SystemExit(run_until_signal(main))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == code
    assert ("CRITICAL a part of the process has ended by itself part=keys" in ended.stderr) == (code == 1)
    assert "Traceback" not in ended.stderr
