"""File and environment → a checked model, with every problem found on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from sidecar.config.document import MAX_BYTES, NO_UTF_8, TOO_LARGE, DocumentError, parse_document
from sidecar.config.environment import override, variables
from sidecar.config.not_yet import take_out_not_yet
from sidecar.config.problems import from_value_error, problems_of
from sidecar.config.remains import contradictions
from sidecar.config.sections import Section
from sidecar.errors import ConfigError, Problem

S = TypeVar("S", bound=Section)
T = TypeVar("T")


class Findings:
    """Problems as they are found, so that a file is told all of them at once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, field: str, wrong: str, cure: str) -> None:
        """Note one problem."""
        self.problems.append(Problem(field, wrong, cure))

    def attempt(self, field: str, make: Callable[..., T], *arguments: object) -> T | None:
        """What ``make`` gives, or None and a problem of ``field`` if a room's settings refuse it."""
        try:
            return make(*arguments)
        except ConfigError as error:
            self.problems += error.problems
        except ValueError as error:
            self.problems.append(from_value_error(field, error))
        return None


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        ConfigError: it cannot be read, is too large, or is no UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:  # cut here, and of fewer characters than bytes, it would pass for a whole file
            raise ConfigError([Problem(str(path), *TOO_LARGE)])
        return raw.decode("utf-8")
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read ({error.strerror})", "name a readable file")]) from error
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), *NO_UTF_8)]) from None


def load_model(
    path: Path,
    environ: Mapping[str, str],
    model: type[S],
    *,
    cross_check: Callable[[S], list[Problem]],
    look_over: Callable[[dict[str, object]], list[Problem]] = lambda _document: [],
) -> S:
    """Read, override, parse and cross-check one settings file. ``look_over`` sees all that is written, before parsing.

    Raises:
        ConfigError: every problem of the file and of the environment.
    """
    try:
        document = parse_document(read_text(path), name=str(path))
    except DocumentError as error:
        raise ConfigError([error.problem]) from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError([Problem(str(path), "is no mapping", "write sections and keys")])
    problems = override(document, environ)
    problems += look_over(document)
    problems += take_out_not_yet(document)
    names = variables(environ)
    try:
        settings = model.model_validate(document)
    except ValidationError as error:
        problems += problems_of(error, model, names)
        problems += contradictions(document, error, model, cross_check, told=problems)
        raise ConfigError(problems) from None
    problems += cross_check(settings)
    if problems:
        raise ConfigError(problems)
    return settings
