"""Recognises values that look like secrets but are none: placeholders, references, digests, public material."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Final


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


_PLACEHOLDER: Final = re.compile(
    r"change[-_ ]?(?:me|it|this)|replace[-_ ]?(?:me|with|this)|your[-_ ]|[-_]your|[-_ ]here$|place[-_ ]?holder"
    r"|redacted|example|insert[-_ ]|not[-_ ]?a[-_ ]?(?:real|secret)|to[-_ ]?be[-_ ]?(?:set|filled|defined)"
    r"|(?<![a-z0-9])(?:dummy|fake|mock|todo|fixme|tbd|sample|foobar|invalid|some[-_]?(?:key|secret|token|password))"
    r"(?![a-z0-9])|x{6,}|\*{3,}|\.{3,}|…|_{6,}|#{4,}|•{3,}|0{12,}",
    re.IGNORECASE,
)
_WORDS: Final = words(
    "api-key none null nil true false undefined empty unset default secret password passwd pass token key api_key"
    " test testing tests demo local localhost admin root user postgres mysql redis rabbitmq guest changeit"
    " string str bytes text value required optional yes no on off"
)
# References to the place of a value: variables, templates, secret stores, encrypted values, paths.
_REFERENCE: Final = re.compile(
    r"\$\{|\$\(|\$[A-Za-z_]\w*$|\$\$|\{\{|\{%|<%|\[\[|%[A-Za-z_]\w*%|%\(|<[^<>]+>|__[A-Z0-9_]+__"
    r"|@[A-Z0-9_]+@|@Microsoft\.KeyVault|ENC\[|\$ANSIBLE_VAULT|(?:vault|op|bws|doppler|keyring|sm|ssm|secretsmanager"
    r"|awssm|awsps|gcpsm|gcp|azurekeyvault|azkv|akv|ref\+[a-z]+|secret|secrets|env|file|infisical|keepass|pass|sops)"
    r":(?!/{2}[^/@\s]+:[^/@\s]+@)|arn:aws|projects/[^/]+/secrets/|(?:~|\.{1,2})?/(?:[a-z.][a-z0-9._-]*/)+[\w.-]*$|[A-Za-z]:\\|process\.env|os\.environ"
    r"|getenv|env\.|secrets\.|vars\.|var\.|local\.|data\.|module\.|self\.|this\.|config\.|settings\.|input\."
)
# A value that a program inserts: f"postgres://agent:{password}@db", "https://agent:%s@host".
_INSERTED: Final = re.compile(r"\{(?:[A-Za-z_][\w.\[\]()'\"]{0,64}|\d?)\}|^%[sdv]$|^:[a-z_]{3,}$")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DIGEST: Final = re.compile(
    r"(?:sha\d+|md5|h1|blake\w+)[-:_].*|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128}", re.I
)
_CRYPT: Final = re.compile(
    r"\$(?:2[aby]|5|6|1|y|argon2\w*|scrypt|pbkdf2\S*|apr1)\$.*|\{(?:SSHA|SHA|CRYPT)\d*\}.*"
    r"|(?:pbkdf2|bcrypt|argon2|scram|scrypt|crypt|sha\d+|md5)[\w-]*[$:].*",
    re.IGNORECASE,
)
_NUMBERS: Final = re.compile(
    r"[\^~<>=v]{0,3}\d+(?:\.[\dx*]+)+(?:[-+][\w.+-]*)?|\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?"
)
_PUBLIC: Final = re.compile(
    r"-----BEGIN (?:CERTIFICATE|[A-Z ]*PUBLIC KEY)|ssh-(?:rsa|ed25519) |ecdsa-sha2-|MII[A-Za-z0-9+/]{40}"
)
_OF_DIGEST: Final = re.compile(
    r"sha\d*|md5|digest|checksum|integrity|hash|commit|revision|etag|fingerprint|thumbprint|signature|nonce|uid|uuid"
    r"|serial|version|image|tag|public|pub|cert|ca|salt|^id|_id|guid|build|trace|span",
    re.IGNORECASE,
)
_SEQUENCES: Final = "abcdefghijklmnopqrstuvwxyz", "01234567890123456789", "zyxwvutsrqponmlkjihgfedcba", "9876543210"
_SEQUENCE: Final = 8  # consecutive characters of an alphabet: not random
_MIN_LETTERS: Final = 16
_MIXED: Final = 0.3, 0.7
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[-.][a-z0-9]+)+")
_LONGEST_WORD: Final = 12


def is_placeholder(value: str) -> bool:
    """Return True if the value is a placeholder or an example of documentation."""
    text = value.strip()
    if text.lower() in _WORDS or _PLACEHOLDER.search(text):
        return True
    body = re.sub(r"[^a-z0-9]", "", text.lower())
    if len(body) >= _SEQUENCE and any(body[at : at + _SEQUENCE] in row for row in _SEQUENCES for at in _steps(body)):
        return True
    return len(text) >= 4 and len(set(re.sub(r"[-_.\s]", "", text))) <= 2


def _steps(body: str) -> range:
    return range(min(len(body), 256) - _SEQUENCE + 1)


def is_reference(value: str) -> bool:
    """Return True if the value refers to a secret elsewhere."""
    text = value.strip()
    return _REFERENCE.match(text) is not None or _INSERTED.search(text) is not None


def is_public(value: str) -> bool:
    """Return True if the value is a certificate, a public key or a password hash."""
    return _PUBLIC.match(value) is not None or _CRYPT.fullmatch(value) is not None


def is_digest(name: str, value: str) -> bool:
    """Return True for a UUID, a version, a date or a digest; a bare hexadecimal digest needs a matching name."""
    if _UUID.fullmatch(value) or _NUMBERS.fullmatch(value):
        return True
    return _DIGEST.fullmatch(value) is not None and (not value.isalnum() or _OF_DIGEST.search(name) is not None)


def is_decoy(value: str) -> bool:
    """Return True if the value is no secret, for any name."""
    return is_placeholder(value) or is_reference(value) or is_public(value)


def entropy(text: str) -> float:
    """Return the Shannon entropy of a text in bits per character."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values()) if text else 0.0


def is_drawn(value: str) -> bool:
    """Return True if a text mixes letters and digits, or capitals and small letters in a ratio unlike identifiers."""
    if any(map(str.isdigit, value)):
        return any(map(str.isalpha, value))
    capitals = sum(map(str.isupper, value)) / len(value)
    return len(value) >= _MIN_LETTERS and _MIXED[0] <= capitals <= _MIXED[1] and value.isascii()


def is_words(value: str) -> bool:
    """Return True if a value is a name: words with separators, possibly with a number at the end."""
    parts = [part for part in re.split(r"[-_./:]", re.sub(r"\d{0,3}$", "", value)) if part]
    if all(part.isalpha() and (part.islower() or part.isupper() or part.istitle()) for part in parts):
        return True
    count = sum(part.isalpha() and len(part) > 2 for part in parts)
    return _NAME.fullmatch(value) is not None and count > 1 and max(map(len, parts)) <= _LONGEST_WORD
