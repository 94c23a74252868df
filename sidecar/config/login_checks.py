"""Checks of routes for which a user logs in at the token service: route, adapter and entry must agree."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.outbound_model import OutboundRouteSection
from sidecar.config.platform_file import Platform
from sidecar.config.sidecar_model import SidecarFile
from sidecar.errors import Problem
from sidecar.exchange.adapters.adapter import Adapter
from sidecar.exchange.metadata import is_web_url
from sidecar.exchange.sts_settings import ExchangeSettings


def login_problems(file: SidecarFile, exchanges: tuple[ExchangeSettings, ...]) -> Iterator[Problem]:
    """Report login routes that no entry opens, and entries whose logins open no route."""
    adapters = {one.issuer: one.known for one in exchanges}
    for field, route in file.mesh_routes():
        adapter = adapters.get(file.issuer_of(route) or "")
        if adapter is not None:
            yield from _adapter(field, route, adapter)
        if is_login(route):
            yield from _route(file, field, route)
    yield from _entry(file)
    yield from _redirect_uris(file, adapters)


def login_ceiling_problems(file: SidecarFile, platform: Platform) -> Iterator[Problem]:
    """Report login and redirect URLs that the platform file does not list."""
    for field, section in file.exchange_sections():
        ceiling = platform.issuers.get(section.issuer)
        listed = None if ceiling is None else ceiling.authorization_endpoint
        if section.authorization_endpoint not in (None, listed):
            yield Problem(
                f"{field}.authorization_endpoint",
                f"is not the one that {platform.path} has for {section.issuer}",
                "remove it, so that the issuer's metadata counts, or write it as authorization_endpoint there",
            )
    for number, uri in enumerate(file.entry.redirect_uris if file.entry is not None else []):
        if uri not in platform.redirect_uris:
            yield Problem(
                f"entry.redirect_uris[{number}]",
                f"{uri} is not in redirect_uris of {platform.path}",
                "remove it, or list it there",
            )


def is_login(route: OutboundRouteSection) -> bool:
    """True for a route whose token service asks the user to log in."""
    return route.token == "login"  # noqa: S105 - a kind


def _adapter(field: str, route: OutboundRouteSection, adapter: Adapter) -> Iterator[Problem]:
    if is_login(route) and not adapter.capabilities.needs_user:
        yield Problem(
            f"{field}.token", f"is login, and {adapter.name} asks no user", "remove it, or set another adapter"
        )
    if route.token == "exchange" and adapter.capabilities.needs_user:  # noqa: S105 - a kind
        yield Problem(
            f"{field}.token", f"is exchange, and {adapter.name} asks a user for each token", "write token: login"
        )


def _route(file: SidecarFile, field: str, route: OutboundRouteSection) -> Iterator[Problem]:
    if file.entry is None or route.name not in file.entry.may_call:
        yield Problem(f"{field}.token", "is login, and no entry opens the route", "list it in entry.may_call")
    for where, inbound in file.inbound_routes():
        if route.name in inbound.may_call:
            yield Problem(f"{where}.may_call", f"{route.name} is opened by its own logins alone", "remove it")
    if route.crossings:
        yield Problem(f"{field}.crossings", "is set on a login route, which exchanges no token", "remove it")
    if route.txn_token:
        yield Problem(f"{field}.txn_token", "is set on a login route, for which none is asked", "remove it")
    if route.observe_until is not None:
        yield Problem(f"{field}.observe_until", "is set on a login route", "remove it: only a login opens the route")


def _entry(file: SidecarFile) -> Iterator[Problem]:
    """Report an entry without issuers of login tokens that opens a route which needs one."""
    if file.entry is None or file.entry.issuers:
        return
    by_login = {route.name for _, route in file.mesh_routes() if is_login(route)}
    if not file.entry.may_call:
        yield Problem("entry.issuers", "is empty, and so is may_call", "list what logins open, or remove the entry")
    for name in sorted(set(file.entry.may_call) - by_login):
        yield Problem(
            "entry.issuers", f"is empty, and {name} is opened by login tokens", "list the issuer, or write token: login"
        )


def _has_browser(adapter: Adapter | None) -> bool:
    return adapter is not None and adapter.login is not None and adapter.login.browser


def _redirect_uris(file: SidecarFile, adapters: dict[str, Adapter]) -> Iterator[Problem]:
    entry = file.entry
    if entry is None:
        return
    for number, uri in enumerate(entry.redirect_uris):
        if not is_web_url(uri):
            yield Problem(f"entry.redirect_uris[{number}]", "is plain http beyond loopback", "use https")
    logins = [route for _, route in file.mesh_routes() if is_login(route)]
    browser = any(_has_browser(adapters.get(file.issuer_of(route) or "")) for route in logins)
    issuers = {file.issuer_of(route) for route in logins}
    by_browser = sorted(name for name in issuers if name is not None and _has_browser(adapters.get(name)))
    if len(by_browser) > 1:
        yield Problem(
            "entry.redirect_uris",
            f"serves browser logins at {' and '.join(by_browser)}, and one could pass off the other's answer",
            "have users log in at one of them here, and at the other in another workload",
        )
    if browser and not entry.redirect_uris:
        yield Problem("entry.redirect_uris", "is empty, and a login comes back there", "list the front app's callback")
    if entry.redirect_uris and not logins:
        yield Problem("entry.redirect_uris", "says nothing where no route has token: login", "remove it")
