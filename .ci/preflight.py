"""Says what is missing before `make setup` starts, in words a newcomer can act on."""

import importlib.util
import sys


def main() -> int:
    """Return 0 when a virtual environment can be made, else say what to install."""
    if sys.version_info < (3, 11):
        print(f"setup: Python 3.11 or newer is needed, this is {sys.version.split()[0]}.")
        print("       Install it and run: make PYTHON=python3.11 setup")
        return 1
    has_venv = all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
    if not has_venv and importlib.util.find_spec("virtualenv") is None:
        print("setup: this Python cannot make virtual environments.")
        print("       Debian, Ubuntu: apt-get install python3-venv     Others: pip install --user virtualenv")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
