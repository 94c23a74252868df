"""Loader of a token service's settings file. ``StsPolicy`` checks most of what must agree, this module the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Final

from delegation_core.errors import ConfigError, Problem
from delegation_core.revocation import Kind
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.addresses import parse_address
from sidecar.config.foreign_issuers import foreign_issuers, foreign_problems
from sidecar.config.groups import actors_of, audiences_of, group_problems, missing_in_rules, pairs_of
from sidecar.config.identity import identity_of, jwt_bundle_problems
from sidecar.config.issuers import development_problems, is_production, key_settings, login_issuer, scope_from
from sidecar.config.profiles import kind_of, kind_problems, with_usable_profile
from sidecar.config.sections import KeySource, UserIssuerSection
from sidecar.config.sidecar_file import records
from sidecar.config.sts_model import RevocationSection, RuleSection, StsFile
from sidecar.config.sts_settings import TokenServiceSettings
from sidecar.config.validation import Findings, load_validated, repetitions
from sidecar.identity.issuer import JwksSettings
from sidecar.sts.logout_endpoint import EventSettings
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rate import RateSettings
from sidecar.sts.revocations import RevocationSettings
from sidecar.sts.rules import (
    ANYONE,
    Anyone,
    EntryWorkload,
    LoginIssuer,
    LoginKind,
    Rule,
    SelfDelegation,
    SelfRule,
    SubjectMatch,
    Target,
)
from sidecar.sts.schedule import KeyLags
from sidecar.sts.server import StsSettings

_PAIR: Final = re.compile(r"^rules\[(\d+)\]")


def load_sts(path: Path, environ: Mapping[str, str]) -> TokenServiceSettings:
    """Load the settings of one token service from its file and the environment.

    Raises:
        ConfigError: every problem, each with its field and its fix.
    """

    def build(file: StsFile, findings: Findings) -> TokenServiceSettings | None:
        findings.extend(_issuers, file)
        findings.extend(_duplicates, file)
        findings.extend(group_problems, file)
        findings.extend(_ephemeral_keys, file)
        findings.extend(_listeners, file)
        findings.extend(_revocation, file)
        findings.extend(_actor_profile, file)
        findings.extend(_records, file)
        return _settings(file, environ, findings)

    return load_validated(path, environ, StsFile, build, check_document=missing_in_rules)


def _duplicates(file: StsFile) -> Iterator[Problem]:
    for field, names in (
        ("login_issuers", (section.issuer for section in file.login_issuers)),
        ("foreign_issuers", (section.issuer for section in file.foreign_issuers)),
        ("targets", (section.workload for section in file.targets)),
        ("entries", (section.workload for section in file.entries)),
    ):
        yield from repetitions(field, names)


def _issuers(file: StsFile) -> Iterator[Problem]:
    for number, section in enumerate(file.login_issuers):
        yield from kind_problems(section, f"login_issuers[{number}]")
    yield from foreign_problems(file.foreign_issuers)
    yield from development_problems(_key_sources(file))


def _key_sources(file: StsFile) -> list[tuple[str, KeySource]]:
    return [
        *((f"login_issuers[{number}]", login) for number, login in enumerate(file.login_issuers)),
        *((f"foreign_issuers[{number}]", foreign) for number, foreign in enumerate(file.foreign_issuers)),
    ]


def _ephemeral_keys(file: StsFile) -> Iterator[Problem]:
    if file.keys == "ephemeral" and any(is_production(source) for _, source in _key_sources(file)):
        yield Problem(
            "keys",
            "is for development: no replica shares the keys and a restart ends every token",
            "name a directory, and fill it by: sidecar sts keygen DIRECTORY",
        )


def _listeners(file: StsFile) -> Iterator[Problem]:
    listeners = {"listen": parse_address(file.listen), "probe.listen": parse_address(file.probe.listen)}
    if file.revocation is not None and file.revocation.events is not None:
        listeners["revocation.events.listen"] = parse_address(file.revocation.events.listen)
    for (first, one), (second, other) in combinations(listeners.items(), 2):
        if one.port and one.port == other.port:
            yield Problem(first, f"is the port of {second}", "give each listener a port of its own")


def _revocation(file: StsFile) -> Iterator[Problem]:
    section = file.revocation
    if section is None:
        return
    if section.file is None and file.keys != "ephemeral":
        yield Problem("revocation.file", "is missing: a restart would forget every revocation", "name a file")
    yield from repetitions("revocation.operators", (operator.spiffe_id for operator in section.operators))
    for number, url in enumerate(section.replicas):
        if not url.startswith("https://"):
            yield Problem(f"revocation.replicas[{number}]", "is not an https URL", "write https://NAME:PORT")


def _actor_profile(file: StsFile) -> Iterator[Problem]:
    if file.act_iss is not None and file.profile == "rfc8693":
        yield Problem("act_iss", "has no effect without the actor profile", "write profile: actor-profile-01")


def _records(file: StsFile) -> Iterator[Problem]:
    if file.records.countersign is not None:
        yield Problem("records.countersign", "is for sidecars: a token service signs its own records", "remove it")


def _settings(file: StsFile, environ: Mapping[str, str], findings: Findings) -> TokenServiceSettings | None:
    identity = findings.attempt("identity", lambda: identity_of(file.identity, environ))
    if identity is not None:
        findings.extend(jwt_bundle_problems, identity)
    keys = findings.attempt("login_issuers", _login_keys, file, findings) or ()
    policy = findings.attempt("policy", _policy, file, findings)
    server = findings.attempt("listen", _server, file)
    if findings.problems or identity is None or policy is None or server is None:
        return None
    return TokenServiceSettings(
        identity=identity,
        server=server,
        policy=policy,
        login_keys=keys,
        key_directory=None if isinstance(file.keys, str) else Path(file.keys.directory),
        key_lags=_key_lags(file),
        records=records(file.records),
        rate=RateSettings(burst=file.exchange_rate.burst, per_s=file.exchange_rate.per_s),
        actor_rate=RateSettings(burst=file.actor_rate.burst, per_s=file.actor_rate.per_s),
        introspection=_introspection(file),
        revocation=_revocation_settings(file.revocation),
        events=_event_settings(file.revocation),
        included=tuple(findings.included.followed),
        used={**findings.included.used, "rules": pairs_of(file)},
    )


def _key_lags(file: StsFile) -> KeyLags:
    if isinstance(file.keys, str):
        return KeyLags()
    return KeyLags(mount_lag_s=file.keys.mount_lag_s, max_age_s=file.keys.max_age_s, refresh_s=file.keys.refresh_s)


def _introspection(file: StsFile) -> RateSettings | None:
    section = file.introspection
    return None if section is None else RateSettings(burst=section.burst, per_s=section.per_s)


def _revocation_settings(section: RevocationSection | None) -> RevocationSettings | None:
    if section is None:
        return None
    return RevocationSettings(
        operators={SpiffeId(one.spiffe_id): frozenset(map(Kind, one.may)) for one in section.operators},
        file=None if section.file is None else Path(section.file),
        replicas=tuple(section.replicas),
    )


def _event_settings(section: RevocationSection | None) -> EventSettings | None:
    events = None if section is None else section.events
    if events is None:
        return None
    listen = parse_address(events.listen)
    return EventSettings(
        host=listen.host,
        port=listen.port,
        audiences=frozenset(events.audiences),
        login_for_s=events.login_for_s,
        subject_for_s=events.subject_for_s,
    )


def _login_keys(file: StsFile, findings: Findings) -> tuple[JwksSettings, ...]:
    keys = [findings.attempt(field, key_settings, source, source.tls) for field, source in _key_sources(file)]
    return tuple(one for one in keys if one is not None)


def _server(file: StsFile) -> StsSettings:
    listen, probe = parse_address(file.listen), parse_address(file.probe.listen)
    return StsSettings(
        host=listen.host,
        port=listen.port,
        probe_host=probe.host,
        probe_port=probe.port,
        base_url=file.base_url,
        keys_max_age_s=_key_lags(file).max_age_s,
        body_timeout_s=file.body_timeout_s,
        drain_s=file.drain_s,
        max_connections=file.max_connections,
    )


def _policy(file: StsFile, findings: Findings) -> StsPolicy:
    """Make the policy.

    Raises:
        ConfigError: every contradiction in it. Empty if groups have problems, which the caller reports.
    """
    if any(group_problems(file)):  # expanded, rules could exceed their bound
        raise ConfigError([])
    logins = [
        with_usable_profile(section, f"login_issuers[{number}]", findings)
        for number, section in enumerate(file.login_issuers)
    ]
    written = [(rule, number) for number, section in enumerate(file.rules) for rule in _rules(file, section)]
    make = partial(
        StsPolicy,
        issuer=file.issuer,
        targets=tuple(
            Target(
                workload=SpiffeId(section.workload),
                audiences=frozenset(section.audiences),
                scopes=frozenset(section.scopes),
                bound=section.bound,
            )
            for section in file.targets
        ),
        rules=tuple(rule for rule, _ in written),
        self_delegations=tuple(
            SelfDelegation(
                workload=SpiffeId(section.workload),
                actor=SpiffeId(section.actor),
                audience=section.audience,
                scopes=frozenset(section.scopes),
            )
            for section in file.self_delegations
        ),
        self_rules=tuple(
            SelfRule(workload=SpiffeId(section.workload), audience=section.audience, scopes=frozenset(section.scopes))
            for section in file.self_rules
        ),
        entries={
            SpiffeId(section.workload): EntryWorkload(
                workload=SpiffeId(section.workload),
                client_ids=section.client_ids,
                door=section.door,
                delegation_life_s=section.delegation_life_s,
                first_token_life_s=section.first_token_life_s,
                long_runs=section.long_runs,
            )
            for section in file.entries
        },
        login_issuers={section.issuer: _login_issuer(section) for section in logins},
        foreign_issuers=foreign_issuers(file.foreign_issuers, findings),
        token_life_s=file.token_life_s,
        max_depth=file.max_depth,
        act_iss=None if file.profile == "rfc8693" else file.act_iss or file.issuer,
    )
    try:
        return make()
    except ConfigError as error:  # its rules are pairs: name their rows instead
        rows = dict.fromkeys(_of_row(problem, [number for _, number in written]) for problem in error.problems)
        raise ConfigError(list(rows)) from None


def _of_row(problem: Problem, rows: Sequence[int]) -> Problem:
    return replace(problem, field=_PAIR.sub(lambda found: f"rules[{rows[int(found[1])]}]", problem.field))


def _rules(file: StsFile, section: RuleSection) -> Iterator[Rule]:
    subjects = frozenset(SubjectMatch(_name(row.issuer), _name(row.subject)) for row in section.subjects)
    scopes = frozenset(section.scopes)
    for actor, audience in product(actors_of(file, section), audiences_of(file, section)):
        yield Rule(actor=SpiffeId(actor), subjects=subjects, audience=audience, scopes=scopes)


def _name(text: str) -> str | Anyone:
    return ANYONE if text == ANYONE.value else text


def _login_issuer(section: UserIssuerSection) -> LoginIssuer:
    return LoginIssuer(
        trusted=login_issuer(section),
        kind=kind_of(section) or LoginKind.ACCESS_TOKEN,  # a missing kind is a problem of its own
        scope_from=scope_from(section),
        subject_prefix=section.subject_prefix,
    )
