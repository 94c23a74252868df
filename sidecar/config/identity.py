"""Builder of the identity source's settings, from the section ``identity``, and checks of files that others need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from delegation_core.console.extras import install_command
from delegation_core.errors import ConfigError, Problem
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.config.sections import FilesSection, IdentitySection
from sidecar.identity.files import LAYOUTS, FileSettings
from sidecar.identity.source_factory import IdentitySettings
from sidecar.identity.workload_settings import WorkloadApiSettings, parse_address

SOCKET_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"


def identity_of(section: IdentitySection, environ: Mapping[str, str]) -> IdentitySettings:
    """Make the settings of our identity source. The file takes precedence over the variable.

    Raises:
        ConfigError: no source is set, several are, or the variable's text is not a Workload API address.
        ValueError: the source cannot do what is asked of it.
    """
    problems = [*_contradictions(section), *(_file_problems(section.files) if section.files is not None else ())]
    if problems:
        raise ConfigError(problems)
    spiffe_id = None if section.spiffe_id is None else SpiffeId(section.spiffe_id)
    if section.files is not None:
        return _files(section.files, spiffe_id)
    address = section.workload_api or environ.get(SOCKET_VARIABLE)
    if not address:
        fix = f"write unix:///path/of/socket, set {SOCKET_VARIABLE}, or name files"
        raise ConfigError([Problem("identity.workload_api", "is missing", fix)])
    if not section.workload_api:
        _check_variable(address)
    return WorkloadApiSettings(
        address=address, spiffe_id=spiffe_id, hint=section.hint, py_spiffe=section.source == "py-spiffe"
    )


def _check_variable(address: str) -> None:
    """Raise a ConfigError that names the variable if its text is not an address."""
    try:
        parse_address(address)
    except ValueError:
        where, fix = f"identity.workload_api ({SOCKET_VARIABLE})", "write unix:///path/of/socket there"
        raise ConfigError([Problem(where, "is not an address of a Workload API", fix)]) from None


def jwt_svid_problems(identity: IdentitySettings, audience: str, what: str) -> Iterator[Problem]:
    """Report a missing JWT-SVID for ``audience``. ``what`` is its use in the exchange, such as actor token."""
    if isinstance(identity, FileSettings) and audience not in identity.jwt_svids:
        yield Problem(
            "identity.files.jwt_svids",
            f"has no file for {audience}, but the exchange sends a JWT-SVID for it as {what}",
            "let spiffe-helper write one (jwt_svids, jwt_audience) and name it; csi-driver-spiffe writes none: use the"
            " Workload API",
        )


def jwt_bundle_problems(identity: IdentitySettings) -> Iterator[Problem]:
    """Report missing JWT bundles, with which a token service verifies actor tokens."""
    if isinstance(identity, FileSettings) and identity.jwt_bundles is None:
        yield Problem(
            "identity.files.jwt_bundles",
            "is missing, and without it no actor token can be verified",
            "let spiffe-helper write one (jwt_bundle_file_name) and name it; csi-driver-spiffe writes none: use the"
            " Workload API",
        )


def _contradictions(section: IdentitySection) -> Iterator[Problem]:
    if section.files is not None and section.workload_api is not None:
        yield Problem("identity.workload_api", "is set beside files", "keep the one that the identity comes from")
    if section.files is not None and section.source is not None:
        yield Problem("identity.source", "is a client of the Workload API, but files are set", "remove one of them")
    if section.files is not None and section.hint is not None:
        fix = "set spiffe_id instead, and the hint in the program that writes the files"
        yield Problem("identity.hint", "has no effect on files, which have no hint", fix)
    if section.source == "py-spiffe" and find_spec("spiffe") is None:
        fix = f"install the extra ({install_command('spiffe')}), or remove it to use the built-in client"
        yield Problem("identity.source", "is not installed here", fix)


def _file_problems(section: FilesSection) -> Iterator[Problem]:
    one_by_one = {"certificate": section.certificate, "key": section.key, "bundle": section.bundle}
    if section.layout is None and section.directory is None:
        for name, path in one_by_one.items():
            if path is None:
                yield Problem(f"identity.files.{name}", "is missing", "name the file, or set directory and layout")
        return
    if section.layout is None:
        yield Problem("identity.files.layout", "is missing", f"write one of {', '.join(LAYOUTS)}")
    if section.directory is None:
        yield Problem("identity.files.directory", "is missing", "name the directory of that layout")
    for name, path in one_by_one.items():
        if path is not None:
            fix = "keep directory and layout, or name certificate, key and bundle"
            yield Problem(f"identity.files.{name}", "is set beside a layout", fix)


def _files(section: FilesSection, spiffe_id: SpiffeId | None) -> FileSettings:
    certificate, key, bundle = _paths(section)
    return FileSettings(
        certificate=certificate,
        key=key,
        bundle=bundle,
        federated={TrustDomain(name): Path(path) for name, path in section.federated.items()},
        jwt_svids={audience: Path(path) for audience, path in section.jwt_svids.items()},
        jwt_bundles=None if section.jwt_bundles is None else Path(section.jwt_bundles),
        spiffe_id=spiffe_id,
        look_every_s=section.look_every_s,
    )


def _paths(section: FilesSection) -> tuple[Path, Path, Path]:
    if section.layout is not None and section.directory is not None:
        certificate, key, bundle = (Path(section.directory) / name for name in LAYOUTS[section.layout])
    else:
        certificate, key, bundle = (Path(path or "") for path in (section.certificate, section.key, section.bundle))
    return certificate, key, bundle
