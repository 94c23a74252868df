"""Examples of settings for their page, each from a file under ``config/`` that a test loads.

Every example comes from a complete file that loads; none is written for the page alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sidecar.config.document import DocumentError, parse_document


def examples_in(folder: Path) -> Mapping[tuple[str, str], object]:
    """Return one example per setting, keyed by section and key, from the files in ``folder`` and ``reference/``.

    Files in ``reference`` take precedence.
    """
    found: dict[tuple[str, str], object] = {}
    for path in (*sorted(folder.glob("reference/*.yaml")), *sorted(folder.glob("*.yaml"))):
        document = parse_document(path.read_text(encoding="utf-8"), name=str(path))
        try:
            file = model_of(path).model_validate(document)
        except ValidationError as error:
            error.add_note(f"in {path}")
            raise
        for section, key, value in _settings_of(file):
            found.setdefault((type(section).__name__, key), value)
    return found


def model_of(path: Path) -> type[BaseModel]:
    """Return the model of an example file, by its name."""
    from sidecar.config.platform_file import PlatformFile
    from sidecar.config.sidecar_model import SidecarFile
    from sidecar.config.sts_model import StsFile

    kinds: dict[str, type[BaseModel]] = {"sts": StsFile, "platform": PlatformFile}
    return kinds.get(path.stem.partition("-")[0], SidecarFile)


def _settings_of(value: object) -> Iterator[tuple[BaseModel, str, object]]:
    """Yield each setting that a file sets: its section, its key and its value as YAML has it."""
    if isinstance(value, BaseModel):
        names = type(value).model_fields
        for name in names:
            if name in value.model_fields_set:
                yield value, names[name].alias or name, plain(getattr(value, name))
                yield from _settings_of(getattr(value, name))
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _settings_of(one)


def plain(value: object) -> Any:
    """Return a value as a settings file has it: a section as a mapping of the keys that are set."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value.value if isinstance(value, Enum) else value


def as_yaml(value: object) -> str:
    """Return a value as one line of YAML that can be pasted into a settings file."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, str) and _is_plain(value):
        return value
    if isinstance(value, float):
        return f"{value:.15g}"
    return json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """True for text that YAML reads back unchanged without quotes, also inside braces."""
    try:
        return parse_document(f"[{text}, {{{text}: {text}}}]", name="") == [text, {text: text}]
    except DocumentError:
        return False
