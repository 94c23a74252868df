"""Reader of any text: assignments, headers, URLs and tokens, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from sidecar.audit.credentials.decoys import words
from sidecar.audit.credentials.fields import MAX_FIELDS, Exposure, Field, Read

MAX_LINE: Final = 4096  # characters that our patterns look at; the detector reads all

_ASSIGNMENT: Final = re.compile(
    r"(?<![A-Za-z0-9_$])([A-Za-z_][A-Za-z0-9_.-]{1,63})[\"']?[ \t]{0,8}(?::=|=>|=|:)[ \t]{0,8}"
    r"(?:([\"'`])([^\"'`]{4,1024})[\"'`]|([^\s\"'`,;]{4,1024}))"
)
_FLAG: Final = re.compile(r"(?<!\S)--?([A-Za-z][A-Za-z0-9-]{1,40})(?:=|[ \t]{1,4})[\"']?([^\s\"']{6,1024})")
_FORM: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+]{1,20}://[^\s'\"<>`]{4,2048}|(?:Basic|Bearer)[ \t]{1,4}[A-Za-z0-9._~+/=-]{8,2048}"
    r"|eyJ[A-Za-z0-9_-]{8,2048}\.eyJ[A-Za-z0-9_.-]{16,2048}"
)
_CURL_USER: Final = re.compile(r"\bcurl\b.{0,512}?\s(?:-u|--user)[ =]{1,2}[\"']?([^\s\"':]{1,64}):([^\s\"']{6,256})")
_SECTION: Final = re.compile(r"\[{1,2}([A-Za-z0-9_.\" -]{1,64})\]{1,2}[ \t]*(?:#.*)?")
_CONNECTION: Final = re.compile(r"(?:Server|Data Source|Endpoint|DefaultEndpointsProtocol|Host)=[^\"'\n]{8,1024}", re.I)

# Where a value needs no quotes.
_SETTINGS: Final = words(".env .envrc .ini .cfg .conf .properties .toml .yaml .yml .json .tfvars .netrc .npmrc")
_UNQUOTED: Final = _SETTINGS | words(".sh .bash .zsh .ps1 .md .txt .rst .log .mk .tpl .j2") | {""}
_LOCKS: Final = words(
    "package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml poetry.lock pipfile.lock uv.lock cargo.lock go.sum"
    " composer.lock gemfile.lock flake.lock bun.lock"
)


def read_plain(path: str, text: str) -> Read:
    """Read any text file."""
    name = PurePath(path).name.lower()
    settings = _suffix(name) in _SETTINGS
    template = Field(
        name="", value="", line=1, exposure=Exposure.CONFIGURATION if settings else Exposure.CODE, owner=folder_of(path)
    )
    return Read(tuple(fields_of(text, template, unquoted=_suffix(name) in _UNQUOTED)))


def is_lock(path: str) -> bool:
    """Tell if a file locks dependencies: its values are digests, and only the detector reads it."""
    return PurePath(path).name.lower() in _LOCKS


def _suffix(name: str) -> str:
    if name.startswith(".env") or name.endswith(".env"):
        return ".env"
    return PurePath(name).suffix if not name.startswith(".") else name


def folder_of(path: str) -> str | None:
    """Return the folder of a file: the closest thing to an owner that plain text has."""
    parent = PurePath(path).parent.name
    return f"folder {parent}" if parent else None


def fields_of(text: str, template: Field, *, unquoted: bool = True) -> Iterator[Field]:
    """Yield the fields of each line. The template's line is that of the text's first; ``unquoted`` values count too."""
    count = 0
    section = ""
    for number, line in enumerate(text.split("\n")):
        line = line[:MAX_LINE]
        heading = _SECTION.fullmatch(line.strip())
        if heading is not None:
            section = heading[1]
            continue
        here = replace(
            template,
            line=template.line + number if template.literal or not template.object else template.line,
            object=", ".join(filter(None, (template.object, section and f"[{section}]"))) or None,
            group=template.group or (1 + number // _NEAR),
        )
        for found in _of_line(line, here, unquoted=unquoted):
            yield found
            count += 1
            if count >= MAX_FIELDS:
                return


_NEAR: Final = 8  # lines that stand together


def _of_line(line: str, here: Field, *, unquoted: bool) -> Iterator[Field]:
    if "://" in line or "eyJ" in line or "Bearer" in line or "Basic" in line:
        for form in _FORM.finditer(line):
            yield replace(here, name="", value=form[0].rstrip(").,;"), literal=False)
    connection = _CONNECTION.search(line)
    if connection is not None:
        yield replace(here, name="", value=connection[0], literal=False)
    if "curl" in line:
        for user in _CURL_USER.finditer(line):
            yield replace(here, name="curl user password", value=user[2], literal=False)
    for flag in _FLAG.finditer(line):
        yield replace(here, name=flag[1], value=flag[2], literal=False)
    for pair in _ASSIGNMENT.finditer(line):
        value = pair[3] or pair[4] or ""
        if pair[2] or unquoted:
            yield replace(here, name=pair[1], value=value, literal=False, object=here.object)
