"""Checks a ClusterSPIFFEID, from which the spire-controller-manager makes an entry for each selected pod."""

from __future__ import annotations

import re
from typing import Final

from delegation_audit.rules import Severity
from delegation_audit.selectors import fixes
from delegation_audit.selectors.entries import Entry, Template, path_of
from delegation_audit.selectors.entry_checks import Weaknesses, report
from delegation_audit.selectors.rulebook import RULE

_ACCOUNT: Final = re.compile(r"\.PodSpec\.(?:ServiceAccountName|DeprecatedServiceAccount)\b")
_BY_AUTHOR: Final = re.compile(r"\.PodMeta\.(?:Labels|Annotations|Name|GenerateName)\b")
_WITH_ACCOUNT: Final = "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"


def check_template(entry: Entry, template: Template) -> Weaknesses:
    """Yield the weaknesses that only a ClusterSPIFFEID can have."""
    if not template.selects_pods and not template.selects_namespaces and not _pins_namespace(entry):
        text = "applies to each pod that no other ClusterSPIFFEID selects" if template.fallback else "selects every pod"
        fix = fixes.set_fields(entry, namespace_selector={"matchLabels": {"delegation-sidecar.io/inject": "enabled"}})
        yield report(RULE["every-pod"], entry, text, fix=fix)
    yield from _template(entry)
    if template.populates_dns_names:
        fix = fixes.set_fields(entry, populates_dns_names=False)
        yield report(RULE["populated-dns-names"], entry, "autoPopulateDNSNames is set", fix=fix)


def _template(entry: Entry) -> Weaknesses:
    path = path_of(entry.spiffe_id)
    chosen = _BY_AUTHOR.search(path)
    asked = [one for one in entry.select("k8s", "sa") if "{{" not in one.value]
    if not _ACCOUNT.search(path) and (chosen or not asked):
        text = "the author of a pod chooses a part of it" if chosen else "all selected pods get one identity"
        fix = fixes.set_fields(entry, spiffe_id=_WITH_ACCOUNT)
        severity = Severity.CRITICAL if chosen and not asked else None
        yield report(RULE["template-without-service-account"], entry, text, fix=fix, severity=severity)
    if not entry.select("k8s", "ns"):
        fix = fixes.set_fields(entry, spiffe_id=_WITH_ACCOUNT)
        yield report(RULE["template-without-namespace"], entry, "no namespace is a part of it", fix=fix)


def _pins_namespace(entry: Entry) -> bool:
    return any("{{" not in one.value for one in entry.select("k8s", "ns"))
