"""Says what is missing before `make setup` starts, in words a newcomer can act on.

python3 .ci/preflight.py            # this Python can make an environment
.venv/bin/python .ci/preflight.py pip   # the environment's pip can install into it
"""

import importlib.util
import re
import sys

PIP_SINCE = (21, 3)  # installs a project without setup.py in place; older ones fail with a traceback or blame setup.py


def pip_problem(version: str) -> str:
    """Return a problem in words if pip is too old, or missing (no version); nothing if it is neither."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is not None and (int(found.group(1)), int(found.group(2))) >= PIP_SINCE:
        return ""
    there = f"pip {version}" if version else "no pip"
    return f"there is {there} in the environment; {PIP_SINCE[0]}.{PIP_SINCE[1]} or newer is needed."


def check_pip() -> int:
    """Return 0 when the pip of this Python can install the project, else say what to do."""
    import importlib.metadata as installed  # not in Python 3.7, which is told what it lacks above

    try:
        problem = pip_problem(installed.version("pip"))
    except installed.PackageNotFoundError:
        problem = pip_problem("")
    if problem:
        print(f"setup: {problem}")
        print("       Debian, Ubuntu: apt-get install python3-venv     Others: pip install --user --upgrade virtualenv")
    return 1 if problem else 0


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
    sys.exit(check_pip() if sys.argv[1:] == ["pip"] else main())
