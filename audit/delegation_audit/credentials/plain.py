"""Reads any text line by line: assignments, headers, URLs and tokens."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from delegation_audit.credentials.decoys import words
from delegation_audit.credentials.fields import MAX_FIELDS, Exposure, Field, Read

MAX_LINE: Final = 8192  # characters of a line that our patterns read; the detector reads all
_MIN_LINE: Final = 7  # characters of the shortest line that a pattern matches: ab=1234

_NAMED: Final = r"(?<![A-Za-z0-9_$])([A-Za-z_][A-Za-z0-9_.-]{1,63})[\"'\]]{0,2}[ \t]{0,8}(?::=|=>|=|:)[ \t]{0,8}"
_QUOTED: Final = re.compile(_NAMED + r"([\"'`])([^\"'`]{4,4096})[\"'`]")
_ANY: Final = re.compile(_NAMED + r"(?:([\"'`])([^\"'`]{4,4096})[\"'`]|([^\s\"'`,;&(){}\[\]<>]{4,4096}))")
_LINE: Final = re.compile(
    r"\s{0,64}(?:export\s{1,4}|set\s{1,4}|-\s{1,4})?([A-Za-z_][\w.-]{1,63})\s{0,8}[=:]\s{0,8}(\S{4,8192})\s{0,64}"
)
# A name and a value in Dockerfiles, .netrc, SQL, XML, PHP, Redis' settings and command lines.
_PAIRS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^\s{0,8}ENV\s{1,4}([A-Z_][A-Z0-9_]{1,63})\s{1,4}([^\s=]{4,1024})$",
        r"(?<![\w$-])(password)\s{1,4}([^\s=:'\"]{4,256})(?=\s*$|\s{1,4}(?:machine|account|login))",
        r"\b(password|identified by)\s{1,4}'([^'\s]{4,256})'",
        r"\b(requirepass|masterauth)[\"']?\s{1,4}[\"']?([^\s\"']{4,256})",
        r"^\s{0,8}(user\s{1,4}[\w-]{1,64})\s[^>\n]{0,64}>([^\s<>]{6,256})",
        r"\b((?:add_user|change_password)\s{1,4}[\w.-]{1,64})\s{1,4}[\"']?([^\s\"'-][^\s\"']{5,255})",
        r"<([A-Za-z][\w.:-]{1,63})>([^<>\s]{4,1024})</",
        r"\b(?:key|name)\s{0,2}=\s{0,2}\"([\w.:-]{2,64})\"\s{1,4}value\s{0,2}=\s{0,2}\"([^\"\s]{4,1024})\"",
        r"\bdefine\(\s{0,4}['\"]([\w]{2,64})['\"]\s{0,4},\s{0,4}['\"]([^'\"\s]{4,1024})['\"]",
    )
)
_HOLDS_MORE: Final = re.compile(r"[\"'`].|[,;&{(\[<]|://|[\w.-]{2}=\S")
_PEM_ENCODED: Final = "LS0tLS1CRUdJTi"  # "-----BEGIN"
_JSON_ENCODED: Final = ("ewog", "eyJ0eXBlIjo", "eyAidHlwZSI6", "ewogICJ0eXBl", "eyJ0eXBlIjog")
# No pattern matches a line of a program without one of these.
_SIGNS: Final = (
    *("pass", "pwd", "pw", "secret", "token", "key", "auth", "cred", "pat", "bearer", "basic", "identified", "sk-"),
    *("://", "eyj", "curl", "docker", "podman", "helm", "oras", "mysql", "redis-cli", "ldap", "skopeo", "buildah"),
    *("server=", "endpoint", "host=", "source=", "az ", "mongo", "mariadb", "cqlsh", "cypher", "sqlcmd", "bcp "),
    *("valkey", "add_user", "kty"),
)
_WORD: Final = r"[ =]{0,2}[\"']?(?:[^\s\"':]{1,64}:)?([^\s\"':-][^\s\"':]{5,255})"
# Programs that accept a password, or user and password, by a short flag: a word of the line besides, and the flags.
_SHORT_FLAGS: Final = tuple(
    (programs, word, re.compile(rf"(?<=\s)(?:{flags}){_WORD}"))
    for programs, word, flags in (
        (("curl",), "", "-u|--user"),
        (("docker", "podman", "helm", "oras", "skopeo", "buildah"), "login", "-p"),
        (("oras", "skopeo", "buildah", "podman"), "", "--creds|--src-creds|--dest-creds"),
        (("mysql", "mariadb", "sshpass", "mongo", "cqlsh", "cypher-shell", "az "), "", "-p"),
        (("redis-cli", "valkey-cli"), "", "-a"),
        (("ldap",), "", "-w"),
        (("sqlcmd", "bcp "), "", "-P"),
    )
)
_FLAG: Final = re.compile(r"(?<!\S)--?([A-Za-z][A-Za-z0-9-]{1,40})(?:=|[ \t]{1,4})[\"']?([^\s\"']{6,1024})")
_FORM: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+]{1,20}://[^\s'\"<>`]{4,2048}|(?:Basic|Bearer)[ \t]{1,4}[A-Za-z0-9._~+/=-]{8,2048}"
    r"|eyJ[A-Za-z0-9_-]{8,2048}\.eyJ[A-Za-z0-9_.-]{16,2048}|(?<![A-Za-z0-9_-])sk-[A-Za-z0-9_-]{32,256}"
)
_SECTION: Final = re.compile(r"\[{1,2}([A-Za-z0-9_.\" -]{1,64})\]{1,2}[ \t]*(?:#.*)?")
_CONNECTION: Final = re.compile(r"(?:Server|Data Source|Endpoint|DefaultEndpointsProtocol|Host)=[^\"'\n]{8,1024}", re.I)

# Suffixes of files in which a value needs no quotes.
_SETTINGS: Final = words(".env .envrc .ini .cfg .conf .properties .toml .yaml .yml .json .tfvars .netrc .npmrc")
_UNQUOTED: Final = _SETTINGS | words(".sh .bash .zsh .ps1 .md .txt .rst .log .mk .tpl .j2") | {""}
_LOCKS: Final = words(
    "package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml poetry.lock pipfile.lock uv.lock cargo.lock go.sum"
    " composer.lock gemfile.lock flake.lock bun.lock"
)


def read_plain(path: str, text: str) -> Read:
    """Read the fields of any text file, line by line."""
    name = PurePath(path).name.lower()
    settings = _suffix(name) in _SETTINGS
    template = Field(
        name="",
        value="",
        line=1,
        strict=not settings,
        exposure=Exposure.CONFIGURATION if settings else Exposure.CODE,
        owner=folder_of(path),
    )
    return Read(tuple(fields_of(text, template, unquoted=_suffix(name) in _UNQUOTED)))


def is_lock(path: str) -> bool:
    """Return True for a lock file of dependencies: its values are digests, so only the detector reads it."""
    return PurePath(path).name.lower() in _LOCKS


def _suffix(name: str) -> str:
    if name.startswith(".env") or name.endswith(".env"):
        return ".env"
    return PurePath(name).suffix if not name.startswith(".") else name


def folder_of(path: str) -> str | None:
    """Return the nearest visible folder of a file as the owner of text that names none; None without a folder."""
    parent = next((one.name for one in PurePath(path).parents if one.name and not one.name.startswith(".")), None)
    return f"folder {parent}" if parent else None


def fields_of(text: str, template: Field, *, unquoted: bool = True) -> Iterator[Field]:
    """Yield the fields of each line. ``template.line``: that of the text's start. ``unquoted``: quotes optional."""
    count = 0
    here = plain = replace(template, literal=False)  # one copy, because a copy per line would take most of the time
    lines = template.literal or not template.object
    program = template.strict and template.exposure is Exposure.CODE
    for number, line in enumerate(text.split("\n")):
        line = line[:MAX_LINE]
        if len(line) < _MIN_LINE and "[" not in line:
            continue
        if program and not any(map(line.lower().__contains__, _SIGNS)):
            continue
        heading = _SECTION.fullmatch(line.strip()) if "[" in line else None
        if heading is not None:
            here = replace(plain, object=", ".join(filter(None, (template.object, f"[{heading[1]}]"))))
            continue
        for found in _parse_line(line, here, unquoted=unquoted):
            yield replace(found, line=found.line + number) if lines else found
            count += 1
            if count >= MAX_FIELDS:
                yield replace(template, name="", value="", cut=True)
                return


def _parse_line(line: str, here: Field, *, unquoted: bool, nested: bool = False) -> Iterator[Field]:
    if any(sign in line for sign in ("://", "eyJ", "Bearer", "Basic", "sk-")):
        for form in _FORM.finditer(line):
            yield replace(here, name="", value=form[0].rstrip(").,;"))
    connection = _CONNECTION.search(line)
    if connection is not None:
        yield replace(here, name="", value=connection[0])
    for programs, word, flags in _SHORT_FLAGS:
        if word in line and any(program in line for program in programs):
            for short in flags.finditer(line):
                yield replace(here, name="password", value=short[1], strict=True)
    for flag in _FLAG.finditer(line):
        yield replace(here, name=flag[1], value=flag[2])
    for pattern in _PAIRS:
        for found in pattern.finditer(line):
            name = "password" if " " in found[1] else found[1]
            yield replace(here, name=name, value=found[2])
    whole = _LINE.fullmatch(line) if unquoted and not nested else None
    if whole is not None and not _HOLDS_MORE.search(whole[2]):
        yield decode_key_file(replace(here, name=whole[1], value=whole[2].strip("\"'`")))
        return
    for pair in (_ANY if unquoted else _QUOTED).finditer(line):
        value = pair[3] or pair[4] if unquoted else pair[3]
        yield decode_key_file(replace(here, name=pair[1], value=value))
        if pair[3] and "=" in value and not nested:  # Environment="API_KEY=..."
            yield from _parse_line(value, here, unquoted=True, nested=True)


def decode_key_file(field: Field) -> Field:
    """Decode a field that is a key file in base64, as in kubeconfigs and CI variables; return others unchanged."""
    text = "".join(field.value.split())
    if not text.startswith((_PEM_ENCODED, *_JSON_ENCODED)) or "." in text:
        return field
    try:
        plain = base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return field
    return replace(field, value=plain, literal=False, hidden=(*field.hidden, field.value))
