"""Hold the voice of CONTRIBUTING.md as far as a machine can: docstrings, private words, commit subjects.

    python .ci/prose.py [FILE ...]           check these files, or every file that git tracks
    python .ci/prose.py --commit-msg FILE    check a commit message

Spelling is codespell's business; see docs/adr/0037-a-prose-linter.md.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OPENERS = frozenset(["what", "whether", "who", "whom", "whose", "how", "where", "when", "why", "which"])
# Any string that may be such a docstring: parsing every file would take seconds.
MAY_OPEN = re.compile(rf"[\"']\s*(?:\\\n)?\s*(?:{'|'.join(sorted(OPENERS))})\b", re.IGNORECASE)
MAX_SUBJECT = 72

# Private words for things that have a common one, by the word to use. A key is a regular expression, case ignored.
PRIVATE = {
    r"can(?:not)? be had": "is (not) available, cannot bind, cannot read",
    r"too much at once": "too many concurrent requests",
    r"untold": "suppressed",
    r"anew|afresh": "again, from the start",
    r"of those who": "of the peers, of the callers",
    r"makes? room for": "evicted for",
    r"(?:rounds?|turns?) of the (?:event )?loop": "event-loop iteration",
    r"last word": "close_notify, the last record",
    r"put off": "deferred",
    r"but for": "except",
    r"by the word of": "according to",
}
ANY_PRIVATE = re.compile(rf"\b(?:{'|'.join(PRIVATE)})\b", re.IGNORECASE)
# Files that quote private words on purpose.
QUOTES = ("docs/adr/0038-a-prose-linter.md", ".ci/prose.py", "AGENTS.md", "CONTRIBUTING.md", "tests/test_prose.py")


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each docstring of a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node.body[0].lineno, docstring


def check(path: str, text: str) -> list[str]:
    """Return one message for each error of a file; ``path`` is relative to the repository."""
    errors = []
    if path.endswith(".py") and MAY_OPEN.search(text):
        for line, docstring in docstrings(text):
            first = re.split(r"\W", docstring, maxsplit=1)[0].lower()
            if first in OPENERS:
                errors.append(f"{path}:{line}: docstring begins with '{first}': begin with a verb, or name the thing")
    if path not in QUOTES and ANY_PRIVATE.search(text):
        for number, line_text in enumerate(text.splitlines(), 1):
            for word, better in PRIVATE.items():
                errors += [
                    f"{path}:{number}: '{found.group()}' is a private word: {better}"
                    for found in re.finditer(rf"\b(?:{word})\b", line_text, re.IGNORECASE)
                ]
    return errors


def check_message(text: str) -> list[str]:
    """Return the errors of a commit message. Lines that git strips are ignored."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    subject = lines[0] if lines else ""
    if subject.startswith(("fixup! ", "squash! ", "Merge ", "Revert ")):
        return []
    errors = []
    if not subject:
        errors.append("the commit message has no subject")
    if len(subject) > MAX_SUBJECT:
        errors.append(f"the subject has {len(subject)} characters: at most {MAX_SUBJECT}")
    if subject.endswith("."):
        errors.append("the subject ends with a full stop")
    if len(lines) > 1 and lines[1]:
        errors.append("the line after the subject is not empty")
    return errors


def tracked() -> list[str]:
    """List the files with prose that git tracks."""
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout.splitlines()
    return [path for path in listed if path.endswith((".py", ".md", ".yaml", ".yml", ".toml"))]


def main(arguments: list[str]) -> int:
    """Print every error. Returns the exit status: 1 if there is an error."""
    if arguments[:1] == ["--commit-msg"]:
        errors = check_message(Path(arguments[1]).read_text())
    else:
        errors = []
        for path in arguments or tracked():
            if Path(path).is_file():
                errors += check(path, Path(path).read_text())
    for error in errors:
        print(error)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
