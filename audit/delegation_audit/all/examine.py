"""Runs every audit over folders and files, and builds the overview. Prints nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from delegation_audit.all.find import Found, find
from delegation_audit.all.overview import Action, Number, Overview, first_actions
from delegation_audit.attribution.command import FIXES
from delegation_audit.attribution.examination import Result as Attribution
from delegation_audit.attribution.examination import examine as examine_attribution
from delegation_audit.attribution.verdicts import UNNAMED
from delegation_audit.attribution.verdicts import Kind as Verdict
from delegation_audit.chains.command import examine_files as examine_chains
from delegation_audit.chains.examination import Audit
from delegation_audit.chains.findings import breaks
from delegation_audit.credentials.examine import Credential
from delegation_audit.credentials.examine import Result as Credentials
from delegation_audit.credentials.examine import examine as examine_credentials
from delegation_audit.credentials.kinds import KINDS
from delegation_audit.ratio.command import Result as Ratio
from delegation_audit.ratio.command import examine as examine_ratio
from delegation_audit.ratio.sources import keys_of
from delegation_audit.selectors.examination import Result as Selectors
from delegation_audit.selectors.examination import examine as examine_selectors
from delegation_audit.verify.command import examine as examine_streams
from delegation_audit.verify.verdicts import Kind as Broken
from delegation_core.console.counts import pluralise
from delegation_core.records.folders import ARCHIVES, UNREADABLE

T = TypeVar("T")

_PLAIN_SUFFIX: Final = re.compile(r"\.[A-Za-z0-9]+")  # needs no quotes
_MOST_WORDS: Final = 20  # of one command
_OURS: Final = ("delegation_audit.", "delegation_core.")  # whose errors quote no input

_IMPERSONATION, _KEY, _WEAK, _TAMPERED, _BROKEN, _MANY = range(6)


def examine(paths: Sequence[str], *, progress: Callable[[str], None] = lambda _step: None) -> Overview:
    """Examine folders and files. Calls ``progress`` with the name of each step before it begins.

    Raises:
        OSError: a path cannot be read, or holds too much; the text names it.
    """
    progress("looking at the files")
    found = find(paths)
    part = _Parts(progress)
    if found.skipped[UNREADABLE]:
        part.troubles.append(
            f"{pluralise(found.skipped[UNREADABLE], 'file or folder', 'files or folders')} not readable"
        )
    if found.skipped[ARCHIVES]:
        part.troubles.append(f"not examined: {found.skipped[ARCHIVES]} {ARCHIVES}")
    credentials = part.run("credentials", lambda: examine_credentials(paths))
    if credentials is not None and credentials.unread:
        unread = pluralise(credentials.unread, "file")
        part.troubles.append(f"audit credentials did not read {unread}; run it to see the reason")
    attribution = part.run(
        "attribution",
        lambda: examine_attribution([*found.logs, *found.records], agents=found.agents),
        when=bool(found.logs or found.records),
    )
    selectors = part.run("selectors", lambda: examine_selectors(paths))
    chains = part.run("chains", lambda: examine_chains(found.records)[0], when=bool(found.records))
    streams = part.run("verify", lambda: examine_streams(found.records, found.keys)[1], when=bool(found.records))
    ratio = part.run(
        "ratio",
        lambda: _ratio(paths, found, credentials),
        when=bool(found.records or found.directories),
    )
    actions = [
        *_credential_actions(credentials),
        *_attribution_actions(attribution),
        *_selector_actions(selectors),
        *_chain_actions(chains),
        *_ratio_actions(ratio),
    ]
    if streams is not None:
        tampered = [one for one in streams.findings if one.kind not in (Broken.UNCHAINED, Broken.UNREADABLE)]
        tampered.sort(key=lambda one: list(Broken).index(one.kind))  # worst kind first
        actions += [
            Action(of="broken chains", urgency=_TAMPERED, text=one.text, fix="compare with another copy of the records")
            for one in tampered[:1]
        ]
    return Overview(
        paths=paths,
        found=found.sentence,
        numbers=[
            _credentials_number(credentials),
            part.number("attribution", _attribution_number(attribution, found)),
            part.number("selectors", _selectors_number(selectors)),
            part.number("ratio", _ratio_number(ratio)),
            part.number("chains", _chains_number(chains)),
        ],
        actions=first_actions(actions),
        commands=_commands(paths, found, selectors=selectors, ratio=ratio),
        troubles=part.troubles,
    )


class _Parts:
    """Runs the parts; adds a part that fails to ``troubles``, and still runs the others."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.troubles: list[str] = []
        self._failed: set[str] = set()
        self._progress = progress

    def run(self, name: str, work: Callable[[], T], *, when: bool = True) -> T | None:
        if not when:
            return None
        self._progress(name)
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - no error of one part may stop the others
            ours = isinstance(error, OSError) or type(error).__module__.startswith(_OURS)
            text = (ours and str(error)) or type(error).__name__
            self.troubles.append(f"audit {name} could not be run: {text}")
            self._failed.add(name)
            return None

    def number(self, name: str, number: Number) -> Number:
        """Return ``number``; if the part failed, an unknown one, which does not claim that there was no input."""
        return _missing(number.name, "it could not be counted, see below") if name in self._failed else number


def _ratio(paths: Sequence[str], found: Found, credentials: Credentials | None) -> Ratio:
    keys = () if credentials is None else keys_of(credentials)
    return examine_ratio(found.records, entries=paths, directory=found.directories, keys=keys)


def _credentials_number(result: Credentials | None) -> Number:
    if result is None:
        return _missing("static credentials", "the search for them failed, see below")
    if not result.files:
        return _missing("static credentials", "no text was found; give manifests, repositories, settings or exports")
    return Number(
        name="static credentials", value=result.summary[0], sentence=result.summary[1], bad=bool(result.credentials)
    )


def _attribution_number(result: Attribution | None, found: Found) -> Number:
    name = "agents that impersonate"
    if result is None or not result.agents:
        return _missing(name, "no log was found; add access logs of what your agents call")
    value, sentence = result.summary
    agents = result.tally.agents.values()
    unsure = sum(one.verdict is Verdict.CANNOT_TELL for one in agents if one.name != UNNAMED or not result.listed)
    if unsure and not value and not result.listed:  # 0 would claim that no agent impersonates
        return _missing(name, "the logs do not tell agents from people; list your agents in agents.txt, one per line")
    if unsure:
        sentence += f"; {unsure} cannot be judged"
    if found.agents is None:
        sentence += "; list the agents in agents.txt"
    if unsure and not value:
        return _missing(name, sentence)
    return Number(name=name, value=value, sentence=sentence, bad=value > 0)


def _selectors_number(result: Selectors | None) -> Number:
    if result is None or not result.entries:
        return _missing("weak entries", "no entry was found; add: spire-server entry show -output json > entries.json")
    value, sentence = result.summary
    return Number(name="weak entries", value=value, sentence=sentence, bad=value > 0)


def _ratio_number(result: Ratio | None) -> Number:
    name = "machine identities for each person"
    if result is None or result.ratio is None:
        return _missing(name, "no person was seen; add records, or a directory export named users.csv")
    return Number(name=name, value=round(result.ratio), sentence=result.summary[1], bad=result.reached, unit=" to 1")


def _chains_number(result: Audit | None) -> Number:
    if result is None or not result.records:
        return _missing("broken chains", "no record was found; add the records of sidecars, or start with one sidecar")
    value, sentence = result.summary
    return Number(
        name="broken chains", value=value, sentence=f"{pluralise(result.records, 'record')}: {sentence}", bad=value > 0
    )


def _chain_actions(result: Audit | None) -> list[Action]:
    if result is None:
        return []
    broken = [one for one in result.findings if breaks(one.kind)]
    fix = "give the missing records, or write a report and ask whose they are"
    return [Action(of="broken chains", urgency=_BROKEN, text=one.text, fix=fix) for one in broken[:1]]


def _missing(name: str, sentence: str) -> Number:
    return Number(name=name, value=None, sentence=sentence, bad=False)


def _credential_actions(result: Credentials | None) -> list[Action]:
    if result is None:
        return []
    return [
        Action(of="static credentials", urgency=_KEY, text=_credential(one), fix=KINDS[one.kind].rule.fix)
        for one in sorted(result.credentials, key=lambda one: -one.rank)[:2]
    ]


def _credential(one: Credential) -> str:
    owner = f" of {one.owners[0]}" if one.owners else ""
    return f"Retire the {KINDS[one.kind].rule.title}{owner}, found at {one.places[0]}"


def _attribution_actions(result: Attribution | None) -> list[Action]:
    if result is None:
        return []
    guilty = [one for one in result.agents if Verdict.IMPERSONATES in one.evidence and one.name != UNNAMED]
    return [
        Action(
            of="agents that impersonate",
            urgency=_IMPERSONATION,
            text=f"Stop {one.name} from acting as its users: "
            f"{pluralise(one.evidence[Verdict.IMPERSONATES].requests, 'request')},"
            f" the first at {one.evidence[Verdict.IMPERSONATES].places[0]}",
            fix=FIXES[Verdict.IMPERSONATES],
        )
        for one in guilty[:2]
    ]


def _selector_actions(result: Selectors | None) -> list[Action]:
    if result is None:
        return []
    return [
        Action(of="weak entries", urgency=_WEAK, text=f"{one.text}, at {one.place}", fix=one.fix.splitlines()[0])
        for one in result.weaknesses[:2]
    ]


def _ratio_actions(result: Ratio | None) -> list[Action]:
    if result is None or not result.reached:
        return []
    idle = sum(not one.people_served for one in result.census.machines.values())
    text = f"Remove machine identities that act for nobody: {idle} of {result.machines}"
    return [Action(of="ratio", urgency=_MANY, text=text, fix="sidecar audit ratio lists them first")]


def _commands(
    paths: Sequence[str], found: Found, *, selectors: Selectors | None, ratio: Ratio | None
) -> list[tuple[str, str]]:
    where, records = shlex.join(paths), _words(found.records)
    commands = [(f"sidecar audit credentials {where}", "each credential, and what retires it")]
    if found.logs:
        agents = f"--agents {shlex.quote(found.agents)} " if found.agents is not None else ""
        logs = f"{agents}{_words(found.logs)}"
        commands.append((f"sidecar audit attribution {logs}", "the verdict on each agent, with its evidence"))
    if selectors is not None and selectors.entries:
        commands.append((f"sidecar audit selectors {where}", "each weak entry, and the command that fixes it"))
    if ratio is not None and ratio.ratio is not None:
        sources = [word for path in paths for word in ("--entries", path, "--search", path)]
        sources += [word for file in found.directories for word in ("--directory", file)]
        commands.append((f"sidecar audit ratio {shlex.join(sources)} {records}".rstrip(), "each machine identity"))
    if found.records:
        commands.append((f"sidecar audit chains {records}", "every chain and contradiction"))
        keys = "".join(f"--keys {shlex.quote(file)} " for file in found.keys)
        commands.append(
            (f"sidecar audit report -o report.html {keys}{records}", "the same as a page for a post-mortem")
        )
        commands.append((f"sidecar audit verify {keys}{records}", "what was changed, removed or inserted"))
    return commands


def _words(files: Sequence[str]) -> str:
    """Return the files as shell words, at most _MOST_WORDS: a glob pattern if it matches exactly a folder's files."""
    groups: dict[tuple[Path, str], list[str]] = {}
    for file in files:
        groups.setdefault((Path(file).parent, Path(file).suffix), []).append(file)
    words: list[str] = []
    for (folder, suffix), members in groups.items():
        names = {Path(file).name for file in members}
        if len(names) > 1 and _PLAIN_SUFFIX.fullmatch(suffix) and _list_names(folder, suffix) == names:
            words.append(f"{shlex.quote(f'{folder}/')}*{suffix}")
        else:
            words += map(shlex.quote, members)
    return " ".join(words[:_MOST_WORDS]) + (" …" if len(words) > _MOST_WORDS else "")


def _list_names(folder: Path, suffix: str) -> set[str]:
    names = (one.name for one in folder.iterdir())
    return {name for name in names if name.endswith(suffix) and not name.startswith(".")}
