"""Reads former versions of files in Git repositories, by the detector library. Runs no program, fetches nothing."""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from delegation_audit.credentials.detector import MISSING, DetectorError
from delegation_audit.credentials.forms import date_of
from delegation_audit.credentials.repositories import OUTSIDE, LeadsOutError, repositories_of, require_inside
from delegation_audit.credentials.walk import MAX_FILE_BYTES, decode_text

MAX_COMMITS: Final = 200_000
MAX_VERSIONS: Final = 500_000
MAX_REPOSITORIES: Final = 200
VERSIONS: Final = "versions that are too large or missing"  # reason to skip: large versions are mostly data


class HistoryError(Exception):
    """A repository's history cannot be read, or there are too many repositories. The message has the fix."""


class Version(NamedTuple):
    """A version of a file in a repository, with the earliest commit that holds it. ``date``: YYYY-MM-DD."""

    path: str
    text: str
    commit: str
    date: str


def versions(paths: Sequence[str], skipped: Counter[str]) -> Iterator[Version]:
    """Yield each version of each file in the repositories around and below the paths, with its earliest commit.

    Raises:
        DetectorError: the library is not installed.
        HistoryError: a repository cannot be read, or there are more than MAX_REPOSITORIES.
    """
    try:
        library: Any = importlib.import_module("kingfisher_sdk")
    except ImportError:
        raise DetectorError(MISSING) from None
    for repository in _repositories(paths, skipped):
        yield from _versions(library, repository, skipped)


def _repositories(paths: Sequence[str], skipped: Counter[str]) -> list[Path]:
    found: dict[Path, None] = {}
    left_out: set[Path] = set()
    for path in paths:
        folder = Path(path)
        if path == "-" or not folder.exists():
            continue
        for repository, root in repositories_of(folder):
            try:
                require_inside(repository, root)
            except LeadsOutError:
                left_out.add(repository)
            else:
                found[repository] = None
    if left_out - found.keys():
        skipped[OUTSIDE] += len(left_out - found.keys())
    if len(found) > MAX_REPOSITORIES:
        raise HistoryError(f"more than {MAX_REPOSITORIES} repositories; name the folders that matter")
    return list(found)


def _versions(library: Any, repository: Path, skipped: Counter[str]) -> Iterator[Version]:
    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        try:
            for version in library.git_inputs(
                repository,
                scope=library.GitScope(refs=None),
                discover=False,
                max_blob_size=MAX_FILE_BYTES,
                max_commits=MAX_COMMITS,
                max_inputs=MAX_VERSIONS,
                skip_missing_blobs=True,
            ):
                text = decode_text(version.data, skipped)
                if text is None or not version.origins:
                    continue
                first = min(version.origins, key=lambda one: one.committer.timestamp)
                yield Version(str(repository / version.path), text, first.id, date_of(max(0, first.author.timestamp)))
        except (ValueError, RuntimeError, OSError, TimeoutError):  # its texts may quote the repository
            raise HistoryError(
                f"{repository}: cannot read the history; run `git fsck` there, or omit --history"
            ) from None
    skipped[VERSIONS] += len(left_out)
