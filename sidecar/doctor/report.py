"""The command's result as a page and as JSON. Neither contains a secret or a token."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import yaml

from delegation_core.console.output import print_json, print_line, print_table
from delegation_core.jws import TOKEN_PATTERN
from sidecar.doctor.attempts import Examination
from sidecar.doctor.cells import Cell, Value
from sidecar.doctor.conclusion import Conclusion, conclude
from sidecar.doctor.facts import facts_of
from sidecar.doctor.fitting_settings import Settings, exchange_settings, issuer_settings, login_settings
from sidecar.doctor.messages import Answer, Request
from sidecar.doctor.verdicts import verdicts_of

_TOKEN: Final = re.compile(TOKEN_PATTERN)
_LEAST_SECRET: Final = 6  # shorter text is a word that may stand anywhere
_LEAST_WITHIN: Final = 12  # shorter text may be a part of a word of ours, as "secret" is of client_secret_basic

Log: TypeAlias = Sequence[tuple[Request, Answer]]


class Veil:
    """Hides secrets and tokens in text that a server may have chosen."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def add(self, *secrets: str) -> None:
        """Add texts to hide, except those shorter than six characters."""
        self._secrets.update(secret for secret in secrets if len(secret) >= _LEAST_SECRET)

    def mask(self, text: str) -> str:
        """Mask the known secrets, and anything that looks like a token, in a text."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= _LEAST_WITHIN:
                text = text.replace(secret, "<secret>")
            elif secret in text:
                text = re.sub(rf"(?<![A-Za-z0-9_]){re.escape(secret)}(?![A-Za-z0-9_])", "<secret>", text)
        return _TOKEN.sub(r"\1<token>", text)

    def mask_all(self, value: object) -> object:
        """Mask each text in a JSON value."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, Mapping):
            return {self.mask(str(name)): self.mask_all(one) for name, one in value.items()}
        return [self.mask_all(one) for one in value] if isinstance(value, list | tuple) else value


def propose(found: Examination, conclusion: Conclusion) -> Settings:
    """Return the settings that fit: for delegation, else for logins alone."""
    if not conclusion.fits:
        login = login_settings(found)
        return {} if login is None else {"login_issuers": [login]}
    issuer, exchange = issuer_settings(found), exchange_settings(found)
    return {} if issuer is None or exchange is None else {"issuers": [issuer], "exchange": exchange}


def document(found: Examination, log: Log, veil: Veil) -> dict[str, object]:
    """Return the whole result as a JSON object. Secrets and tokens in its texts are masked."""
    cells = verdicts_of(found)
    conclusion = conclude(cells)
    return {
        "token_endpoint": found.case.server.token,
        "issuer": found.case.server.issuer,
        "fits": conclusion.fits,
        "against": list(conclusion.against),
        "open": list(conclusion.open),
        "cautions": list(conclusion.cautions),
        "settings": veil.mask_all(propose(found, conclusion)),
        "cells": [
            {
                "id": one.id,
                "question": one.question,
                "value": one.value.value,
                "detail": veil.mask(one.detail),
                "bad": one.bad,
                "evidence": [veil.mask(line) for line in one.evidence],
            }
            for one in cells
        ],
        "facts": veil.mask_all(facts_of(found)),
        "requests": [
            {"name": one.name, "request": veil.mask(one.describe()), "answer": veil.mask(answer.told)}
            for one, answer in log
        ],
    }


def show(found: Examination, log: Log, veil: Veil, *, as_json: bool, evidence: bool) -> bool:
    """Print the result. Return True if the server fits."""
    cells = verdicts_of(found)
    conclusion = conclude(cells)
    if as_json:
        print_json(document(found, log, veil))
        return conclusion.fits
    print_line()
    print_table(("question", "verdict", "seen"), _rows(cells, veil, evidence=evidence))
    print_line()
    print_table(("form", "seen"), ((name, veil.mask(text)) for name, text in facts_of(found).items()))
    _conclude(found, conclusion, veil)
    return conclusion.fits


def _rows(cells: Sequence[Cell], veil: Veil, *, evidence: bool) -> Iterable[tuple[str, str, str]]:
    for one in cells:
        value = f"{one.value.value} !" if one.bad else one.value.value
        yield one.question, value, veil.mask(one.detail)
        if evidence and one.value is not Value.NOT_TESTED:
            for line in one.evidence:
                yield "", "", f"  {veil.mask(line)}"


def _conclude(found: Examination, conclusion: Conclusion, veil: Veil) -> None:
    print_line()
    if conclusion.against:
        print_line("Do not use it for delegation, because", style="bold red")
        _list(conclusion.against)
    elif conclusion.open:
        print_line("Nothing found against it, but not enough is seen to use it for delegation:", style="bold yellow")
        _list(conclusion.open)
    else:
        print_line("It fits.", style="bold green")
    if conclusion.cautions:
        print_line("Mind:")
        _list(conclusion.cautions)
    settings = propose(found, conclusion)
    if not settings:
        return
    print_line()
    where = "Settings of a sidecar that fit" if conclusion.fits else "For logins it fits: settings of our token service"
    print_line(f"{where} (check names and scopes, then run sidecar check):")
    text = yaml.safe_dump(veil.mask_all(settings), sort_keys=False, allow_unicode=False, width=1000)
    for line in text.rstrip().split("\n"):
        print_line(f"  {line}")


def _list(lines: Iterable[str]) -> None:
    for line in lines:
        print_line(f"  - {line}")
