"""Properties of SPIRE selector kinds: the author of the value, its strength, and values that exclude each other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from delegation_audit.selectors.entries import Selector

# Values that the author of a pod or container chooses freely.
CHOSEN_BY_AUTHOR: Final = frozenset({"pod-label", "container-name", "pod-name", "pod-owner"})
OF_NAMESPACE: Final = frozenset({"ns", "ns-label"})
# Values that say nothing about the workload.
OF_NOTHING: Final = frozenset({"node-name", "pod-image-count", "pod-init-image-count"})
_SIGNED: Final = (
    "image-signature",
    "image-signature-subject",
    "image-signature-issuer",
    "image-signature-value",
    "image-attestations",
)
IMAGES: Final = frozenset(
    {
        ("k8s", "container-image"),
        ("k8s", "pod-image"),
        ("k8s", "pod-init-image"),
        ("docker", "image_id"),
    }
)

# Selector kinds of SPIRE's own workload attestors (1.13); another kind of these types never matches.
KNOWN: Final = {
    "k8s": frozenset(
        {
            *CHOSEN_BY_AUTHOR,
            *OF_NAMESPACE,
            *OF_NOTHING,
            *_SIGNED,
            "sa",
            "pod-uid",
            "pod-owner-uid",
            "container-image",
            "pod-image",
            "pod-init-image",
            "image-signature-log-id",
            "image-signature-log-index",
            "image-signature-integrated-time",
            "image-signature-signed-entry-timestamp",
            "sigstore-validation",
        }
    ),
    "unix": frozenset(
        {"uid", "user", "gid", "group", "supplementary_gid", "supplementary_group", "path", "sha256"},
    ),
    "docker": frozenset(
        {
            *_SIGNED,
            "label",
            "env",
            "image_id",
            "image_config_digest",
            "image-signature-log-id",
            "image-signature-log-index",
            "image-signature-integrated-time",
            "image-signature-signed-entry-timestamp",
        }
    ),
    "systemd": frozenset({"id", "fragment_path"}),
}
GROUPS: Final = frozenset({"gid", "group", "supplementary_gid", "supplementary_group"})

# Selectors of node attestors that all nodes of a cluster, an account or a network share.
_BROAD_NODE_KINDS: Final = {
    "k8s_psat": {"cluster", "agent_ns", "agent_sa"},
    "k8s_sat": {"cluster", "agent_ns", "agent_sa"},
    "aws_iid": {"account", "az", "region", "vpc", "image"},
    "gcp_iit": {"project-id", "zone"},
    "azure_msi": {"subscription-id", "tenant-id", "resource-group", "virtual-network"},
    "x509pop": {"ca"},
}
_SINGLE: Final = {
    "k8s": {
        "ns",
        "sa",
        "node-name",
        "pod-uid",
        "pod-name",
        "container-name",
        "pod-image-count",
        "pod-init-image-count",
    },
    "unix": {"uid", "user", "gid", "group", "path", "sha256"},
    "docker": {"image_config_digest"},
    "systemd": {"id", "fragment_path"},
    "dev": {"uid", "path", "pids", "socket"},
}
_KEYED: Final = {("k8s", "pod-label"): ":", ("k8s", "ns-label"): ":", ("docker", "label"): ":", ("docker", "env"): "="}

_DIGEST: Final = re.compile(r"(?:^|@)sha256:([0-9a-f]{64})$")
_BARE_ID: Final = re.compile(r"[0-9a-f]{64}")
# Programs that run other programs, so that their path does not identify a workload.
_INTERPRETER: Final = re.compile(
    r"(?:python|pypy|ruby|perl|php|lua|java|guile|tclsh|erl|beam\.smp|node|nodejs|deno|bun|dotnet|mono|pwsh|powershell"
    r"|sh|bash|dash|ash|zsh|ksh|fish|csh|tcsh|busybox|env|tini|dumb-init|docker-init|catatonit|s6-svscan|supervisord"
    r"|(?:docker-)?entrypoint(?:\.sh)?|uv|uvx|npx|npm|runc|containerd-shim(?:-runc-v2)?|docker)"
    r"(?:-?[0-9]+(?:\.[0-9]+)*t?)?(?:\.exe)?",
    re.IGNORECASE,
)


def is_interpreter(path: str) -> bool:
    """Return True if the program at a path runs other programs, as ``/usr/bin/python3.11`` does."""
    return _INTERPRETER.fullmatch(re.split(r"[/\\]", path)[-1]) is not None


def digest_of(image: str) -> str | None:
    """Return the SHA-256 in an image reference, in hex; None if the reference is a tag."""
    found = _DIGEST.search(image)
    if found:
        return found[1]
    return image if _BARE_ID.fullmatch(image) else None


def repository_of(image: str) -> str:
    """Return an image reference without tag and digest."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(":")[0]


def is_signed(selectors: Iterable[Selector]) -> bool:
    """Return True if a selector requires a verified signature of the image."""
    return any(one.kind in _SIGNED and one.type in ("k8s", "docker") for one in selectors)


def is_broad_node(selectors: Iterable[Selector]) -> bool:
    """Return True if all nodes of a cluster, an account or a network have all of these selectors."""
    return all(one.kind in _BROAD_NODE_KINDS.get(one.type, ()) for one in selectors)


def slot_of(one: Selector) -> tuple[object, str] | None:
    """Return the single-valued property of a process that a selector states, and the value; None for other kinds.

    If two entries require different values of one such property, no process matches both.
    """
    if one.kind in _SINGLE.get(one.type, ()):
        return (one.type, one.kind), one.value
    separator = _KEYED.get((one.type, one.kind))
    if separator is not None:
        key, _, value = one.value.partition(separator)
        return (one.type, one.kind, key), value
    if (one.type, one.kind) in (("k8s", "container-image"), ("docker", "image_id")):
        digest = digest_of(one.value)
        return ((one.type, one.kind, "tag"), one.value) if digest is None else ((one.type, one.kind, "digest"), digest)
    return None
