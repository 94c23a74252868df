"""``sidecar audit attribution``: tells from existing access logs if agents impersonate or delegate today.

Exit codes: 0 every request names user and actor, 1 some do not, 2 a file cannot be read or holds no requests.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Final

from sidecar.audit.attribution.readings import Fields, Named, NoRequestError, named_by
from sidecar.audit.attribution.verdicts import UNKNOWABLE, Attribution, Tally
from sidecar.audit.log_lines import Line, read_lines
from sidecar.audit.output import add_logs, complain, hang_up, print_line, print_table, visible
from sidecar.examples import add_examples

_COMMAND: Final = "sidecar audit attribution"
_SHOWN_ONE_BY_ONE: Final = 40

Judged = tuple[Line, Named, Attribution]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar audit attribution access.log",
        "kubectl logs deploy/crm | sidecar audit attribution - --user claims.sub --actor claims.act.sub --json",
    )
    add_logs(parser)
    parser.add_argument("--user", action="append", default=[], metavar="FIELD", help="a JSON field that names the user")
    parser.add_argument(
        "--actor", action="append", default=[], metavar="FIELD", help="a JSON field that names the actor"
    )


def run(arguments: argparse.Namespace) -> int:
    """Judge the log files."""
    tally = Tally()
    fields = Fields(user=[name.lower() for name in arguments.user], actor=[name.lower() for name in arguments.actor])
    judged = _judged(read_lines(arguments.files), fields, tally)
    try:
        if arguments.json:
            _print_document(judged, tally)
        else:
            _show(judged, tally)
    except BrokenPipeError:
        return hang_up()
    except OSError as error:
        return complain(_COMMAND, str(error))
    if not tally.requests:
        return complain(_COMMAND, f"no line is a request; lines not understood: {tally.not_understood}")
    return 0 if tally.counts[Attribution.DELEGATING] == tally.requests else 1


def _judged(lines: Iterator[Line], fields: Fields, tally: Tally) -> Iterator[Judged]:
    for line in lines:
        try:
            named = None if line.content is None else named_by(line.content, fields)
        except NoRequestError:
            tally.not_understood += 1
            continue
        if line.content is None:
            tally.not_understood += 1
        elif named is not None:
            yield line, named, tally.add(named)


def _print_document(judged: Iterator[Judged], tally: Tally) -> None:
    """Print one JSON document, written while reading: the requests need not fit into memory."""
    write = sys.stdout.write
    write('{"requests": [')
    for number, (line, named, attribution) in enumerate(judged):
        row = {
            "place": line.place,
            "attribution": attribution,
            "user": _shown(named.user),
            "actor": _shown(named.actor),
            "client": _shown(named.client),
            "request": _shown(named.request),
            "refused": named.refused,
        }
        write(("," if number else "") + "\n" + json.dumps(row))
    summary: dict[str, object] = {
        "requests": tally.requests,
        **{attribution: tally.counts[attribution] for attribution in Attribution},
        "not_understood": tally.not_understood,
        "sentences": tally.sentences(),
        "unknowable": UNKNOWABLE,
    }
    write(f'\n],\n"summary": {json.dumps(summary, indent=2)}}}\n')


def _shown(text: str | None) -> str | None:
    """Return the path for the table, with any tokens in it masked."""
    return None if text is None else visible(text)


def _show(judged: Iterator[Judged], tally: Tally) -> None:
    first = [one for one, _ in zip(judged, range(_SHOWN_ONE_BY_ONE), strict=False)]
    rest = next(judged, None)
    if rest is None:
        print_table(
            ("request", "says", "user", "actor", "client", "at"),
            (
                (named.request, attribution.replace("_", " "), named.user, named.actor, named.client, line.place)
                for line, named, attribution in first
            ),
        )
    else:
        for _ in chain([rest], judged):
            pass
        print_table(
            ("requests", "says", "user", "actor", "client"),
            (
                (count, group.attribution.replace("_", " "), group.user, group.actor, group.client)
                for group, count in tally.groups.most_common(_SHOWN_ONE_BY_ONE)
            ),
        )
        hidden = sum(count for _, count in tally.groups.most_common()[_SHOWN_ONE_BY_ONE:]) + tally.others
        if hidden:
            print_line(f"and {hidden} more; --json lists every request", style="dim")
    if not tally.requests:
        return
    print_line()
    for sentence in tally.sentences():
        print_line(sentence, style="bold")
    if tally.not_understood:
        print_line(f"lines not understood, and not counted: {tally.not_understood}")
    print_line()
    print_line("Limits of this report:")
    for sentence in UNKNOWABLE:
        print_line(f"  {sentence}", style="dim")
