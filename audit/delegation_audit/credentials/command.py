"""``sidecar audit credentials``: lists the static credentials that agents depend on, and the way to retire each.

Exit codes: 0 no credentials, 1 credentials, 2 a file, a key or the detector cannot be used, or no credential was
found but a text was not read to its end.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from delegation_audit.credentials.detector import DetectorError, Kingfisher
from delegation_audit.credentials.examine import Credential, Result, examine
from delegation_audit.credentials.history import HistoryError
from delegation_audit.credentials.kinds import KINDS, RULES
from delegation_audit.credentials.secrecy import Fingerprints, KeyFileError, read_key
from delegation_audit.rules import Place, unknown_rules
from delegation_audit.sarif import sarif
from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.output import add_formats, complain, print_json, print_line, print_table
from delegation_core.records.folders import ARCHIVES, TooLargeError

COMMAND: Final = "sidecar audit credentials"
_SHOWN: Final = 40  # rows of the table; --json lists all
_SHORT: Final = 14  # characters of a fingerprint in the table: three groups


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder, or - for standard input")
    parser.add_argument(
        "--history", action="store_true", help="also read former versions in the Git repositories of these paths"
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the key of the fingerprints, so that runs can be compared (default: a random key per run)",
    )
    add_formats(parser)
    add_examples(
        parser,
        "sidecar audit credentials .  # a repository",
        "sidecar audit credentials manifests/ realm.json ~/.cursor/mcp.json",
        "sidecar audit credentials --history --sarif . > credentials.sarif",
        "kubectl get secrets,configmaps,deployments -A -o yaml | sidecar audit credentials -",
    )


def run(arguments: argparse.Namespace) -> int:
    """Examine the paths and print the credentials. Returns the exit code."""
    unknown = unknown_rules(arguments.ignore, RULES)
    if unknown is not None:
        return complain(COMMAND, unknown)
    try:
        fingerprints = Fingerprints(None if arguments.key is None else read_key(arguments.key))
        result = examine(
            arguments.paths,
            Kingfisher(),
            fingerprints=fingerprints,
            history=arguments.history,
            ignored=arguments.ignore,
        )
    except (DetectorError, HistoryError, KeyFileError, TooLargeError) as error:
        return complain(COMMAND, str(error))
    except OSError as error:
        return complain(COMMAND, f"{error.filename}: cannot be read ({error.strerror}); name a readable file or folder")
    if not result.files:
        return complain(COMMAND, _no_text(result.skipped.get(ARCHIVES, 0)))
    if arguments.sarif:
        print_json(sarif(COMMAND, RULES, result.weaknesses()))
    elif arguments.json:
        print_json(document(result))
    else:
        _show(result)
    if result.unread and not result.credentials:
        return complain(
            COMMAND,
            f"{pluralise(result.unread, 'file was', 'files were')} not read to the end; --json counts the reasons",
        )
    return 1 if result.credentials else 0


def _no_text(archives: int) -> str:
    if not archives:
        return "no text file found; name a file, or a folder with text files"
    these = "it" if archives == 1 else "them"
    return f"no text file found, but {pluralise(archives, 'archive')}: unpack {these}, and name the folder"


def document(result: Result) -> dict[str, object]:
    """Return the result as ``--json`` prints it."""
    number, sentence = result.summary
    return {
        "credentials": [_entry(one) for one in result.credentials],
        "unsure": [_entry(one) for one in result.unsure],
        "summary": {
            "credentials": number,
            "kinds": {
                kind.value: count for kind in KINDS if (count := sum(one.kind is kind for one in result.credentials))
            },
            "sentence": sentence,
            "files": result.files,
            "skipped": result.skipped,
        },
    }


def _entry(one: Credential) -> dict[str, object]:
    return {
        "kind": one.kind.value,
        "fingerprint": one.fingerprint,
        "severity": one.severity.value,
        "rank": one.rank,
        "confidence": one.confidence.value,
        "owners": list(one.owners),
        "provider": one.provider,
        "created": one.created,
        "expires": one.expires,
        "age_days": one.age_days,
        "exposure": [exposure.value for exposure in one.exposures],
        "facts": dict(one.facts),
        "places": [_place(place) for place in one.places],
        "fix": KINDS[one.kind].rule.fix,
        "cure": KINDS[one.kind].rule.fix,  # the key's old name, for one release
        "settings": one.settings,
    }


def _place(place: Place) -> dict[str, object]:
    return {"file": place.file, "line": place.line, "object": place.object}


def _show(result: Result) -> None:
    if result.credentials:
        rows = (
            (one.severity, KINDS[one.kind].rule.title, _owners(one), _places(one), _age(one), one.fingerprint[:_SHORT])
            for one in result.credentials[:_SHOWN]
        )
        print_table(("severity", "credential", "owner", "place", "age", "fingerprint"), rows)
    if len(result.credentials) > _SHOWN:
        print_line(f"and {len(result.credentials) - _SHOWN} more; --json lists every credential", style="dim")
    print_line(result.summary[1], style="bold")
    _show_fixes(result)
    if result.unsure:
        unsure = pluralise(len(result.unsure), "value that only looks", "values that only look")
        print_line(f"Not counted: {unsure} random; --json lists all as unsure.", style="dim")
    if result.skipped:
        print_line(
            "Not read: " + "; ".join(f"{reason} ({count})" for reason, count in result.skipped.items()), style="dim"
        )


def _show_fixes(result: Result) -> None:
    """Print the fix of each kind that was found, highest rank first."""
    for kind in dict.fromkeys(one.kind for one in result.credentials):
        rule = KINDS[kind].rule
        print_line()
        print_line(f"{rule.title} ({kind.value})", style="bold")
        print_line(f"  {rule.why}")
        print_line(f"  {rule.fix}")
        pieces = dict.fromkeys(one.settings for one in result.credentials if one.kind is kind)
        for piece in filter(None, pieces):
            for line in piece.splitlines():
                print_line(f"    {line}", style="dim")


def _owners(one: Credential) -> str | None:
    shown = ", ".join(one.owners[:2]) + (f" and {len(one.owners) - 2} more" if len(one.owners) > 2 else "")
    return shown or None


def _places(one: Credential) -> str:
    first, more = one.places[0], len(one.places) - 1
    commit = "" if first.commit is None else f" in commit {first.commit}"
    return f"{first}{commit}" + (f" and {more} more" if more else "")


def _age(one: Credential) -> str | None:
    return None if one.age_days is None else pluralise(one.age_days, "day")
