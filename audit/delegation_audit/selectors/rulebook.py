"""Rules for registration entries, with their reasons, fixes and standards."""

from __future__ import annotations

from typing import Final

from delegation_audit.rules import Rule, Severity

_K8S: Final = "SPIRE: plugin_agent_workloadattestor_k8s"
_UNIX: Final = "SPIRE: plugin_agent_workloadattestor_unix"
_DOCKER: Final = "SPIRE: plugin_agent_workloadattestor_docker"
_REGISTERING: Final = "spiffe.io: Registering workloads"
_SERVER: Final = "SPIRE: spire_server"
_SCALING: Final = "spiffe.io: Scaling SPIRE"
_FEDERATION: Final = "SPIFFE Federation"
_SPIFFE_ID: Final = "SPIFFE-ID section 2"
_TEMPLATES: Final = "spire-controller-manager: ClusterSPIFFEID"

MAX_X509_TTL_S: Final = 3600
MAX_JWT_TTL_S: Final = 900

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        id="no-selectors",
        title="An entry without selectors",
        severity=Severity.CRITICAL,
        why="Nothing is required of the process, so any process may match.",
        fix="State the selectors of the one workload, or delete the entry.",
        standard=_REGISTERING,
    ),
    Rule(
        id="agent-admin",
        title="An agent is admin of the SPIRE server",
        severity=Severity.CRITICAL,
        why="An admin's SVID may create and change entries: an agent that is misled gives itself any identity.",
        fix="Remove admin from the agent's entry. Administration belongs to an identity that no agent holds.",
        standard=_SERVER,
    ),
    Rule(
        id="agent-downstream",
        title="An agent may sign as a downstream server",
        severity=Severity.CRITICAL,
        why="A downstream entry gets a CA certificate: its holder signs any identity of the trust domain.",
        fix="Remove downstream from the agent's entry.",
        standard=_SCALING,
    ),
    Rule(
        id="namespace-only",
        title="Only the namespace or node is required",
        severity=Severity.HIGH,
        why="Every pod of the namespace, or of the node, gets the identity.",
        fix="Add the workload's ServiceAccount and its image by digest.",
        standard=_K8S,
    ),
    Rule(
        id="label-only",
        title="Only labels or names are required",
        severity=Severity.HIGH,
        why="Whoever creates a pod or container chooses its labels, names and variables.",
        fix="Add selectors that the author cannot choose: the ServiceAccount, and the image by digest.",
        standard=f"{_K8S}; {_DOCKER}",
    ),
    Rule(
        id="shared-service-account",
        title="A ServiceAccount that several identities share",
        severity=Severity.MEDIUM,
        why="Whoever may create pods with the account can get each of its identities."
        " Every pod that names no account runs as default.",
        fix="Give each workload a ServiceAccount of its own.",
        standard=_K8S,
    ),
    Rule(
        id="service-account-without-namespace",
        title="A ServiceAccount without its namespace",
        severity=Severity.HIGH,
        why="Anyone may create a ServiceAccount of that name in a namespace of their own.",
        fix="Add the namespace.",
        standard=_K8S,
    ),
    Rule(
        id="whole-pod",
        title="Every container of the pod gets the agent's identity",
        severity=Severity.MEDIUM,
        why="Without a container or an image, SPIRE gives each container of the pod the identity: the agent then"
        " holds the key as well and can call without the sidecar.",
        fix="Name the sidecar's container, and its image by digest.",
        standard=_K8S,
    ),
    Rule(
        id="shared-with-sidecar",
        title="Agent and sidecar share one identity",
        severity=Severity.HIGH,
        why="A second entry gives the identity of the sidecar to another process: calls that no sidecar judged or"
        " recorded cannot be distinguished from the sidecar's.",
        fix="Keep only the sidecar's entry.",
        standard=_REGISTERING,
    ),
    Rule(
        id="agent-entry",
        title="The agent's own container has an identity",
        severity=Severity.MEDIUM,
        why="An agent that holds the key can call without exchange, policy and record. Only its sidecar needs a key.",
        fix="Name the sidecar's container instead of the agent's.",
        standard=_K8S,
    ),
    Rule(
        id="image-tag",
        title="An image by tag",
        severity=Severity.MEDIUM,
        why="Anyone who may push to the registry can move the tag, and then their program has the identity.",
        fix="Name the image by digest, or require a verified signature.",
        standard=f"{_K8S}; {_DOCKER}",
    ),
    Rule(
        id="root-user",
        title="The user is root",
        severity=Severity.HIGH,
        why="Every process of root matches, on a host and in each container that runs as root.",
        fix="Run the workload as a user of its own, and require that user.",
        standard=_UNIX,
    ),
    Rule(
        id="shared-uid",
        title="A user that several identities share",
        severity=Severity.HIGH,
        why="Processes of one user can read each other's memory and files: each can become the other.",
        fix="Run each workload as a user of its own.",
        standard=_UNIX,
    ),
    Rule(
        id="group-only",
        title="Only a group is required",
        severity=Severity.HIGH,
        why="Every process with the group matches, whoever runs it.",
        fix="Add the user of the one workload.",
        standard=_UNIX,
    ),
    Rule(
        id="interpreter-path",
        title="The path of an interpreter or launcher",
        severity=Severity.HIGH,
        why="SPIRE sees the program that runs, which is the interpreter: every script that it runs matches.",
        fix="Require a user that runs nothing else; path and hash of an interpreter identify no program.",
        standard=_UNIX,
    ),
    Rule(
        id="identical-selectors",
        title="The same selectors give several identities",
        severity=Severity.HIGH,
        why="Each process that matches gets all of these identities and may act as any of them.",
        fix="Use selectors that distinguish the workloads, or delete the entry that the workload does not need.",
        standard=_REGISTERING,
    ),
    Rule(
        id="subset-entry",
        title="The selectors are a subset of another entry's",
        severity=Severity.HIGH,
        why="Each process that matches the narrower entry matches this entry too, and gets both identities.",
        fix="Add a selector that only this workload has.",
        standard=_REGISTERING,
    ),
    Rule(
        id="overlapping-entry",
        title="A process can match two entries",
        severity=Severity.MEDIUM,
        why="The entries share selectors, and no selector excludes a process that has all of both.",
        fix="Add a selector in which the workloads differ, such as the ServiceAccount, container or user.",
        standard=_REGISTERING,
    ),
    Rule(
        id="duplicate-entry",
        title="A duplicate entry",
        severity=Severity.LOW,
        why="Whoever deletes one of them believes that the identity is withdrawn.",
        fix="Keep one of them.",
        standard=_REGISTERING,
    ),
    Rule(
        id="hint-collision",
        title="One hint for two identities of one process",
        severity=Severity.MEDIUM,
        why="SPIRE hands out only the older of two SVIDs with one hint; the other is missing without an error.",
        fix="Give each entry a hint of its own.",
        standard="SPIFFE Workload API section 5.2",
    ),
    Rule(
        id="broad-parent",
        title="Too many nodes may request the identity",
        severity=Severity.HIGH,
        why="Whoever takes over any of the nodes under the parent gets the identity. The server as a parent names"
        " no node at all.",
        fix="Choose an alias of the nodes that run the workload.",
        standard=_REGISTERING,
    ),
    Rule(
        id="join-token-parent",
        title="The node was attested by a join token",
        severity=Severity.LOW,
        why="A join token is a shared secret: whoever uses it first is the node, and nothing proves the machine.",
        fix="Attest the node by its platform (k8s_psat, aws_iid, x509pop, tpm_devid), and register under that parent.",
        standard="SPIRE: plugin_agent_nodeattestor_jointoken",
    ),
    Rule(
        id="long-x509-ttl",
        title="X.509-SVIDs that live longer than an hour",
        severity=Severity.MEDIUM,
        why="A stolen key is usable until its SVID expires; deleting the entry does not revoke the SVID.",
        fix="Set an hour or less; 0 is the server's default.",
        standard=_SERVER,
    ),
    Rule(
        id="long-jwt-ttl",
        title="JWT-SVIDs that live longer than fifteen minutes",
        severity=Severity.MEDIUM,
        why="A JWT-SVID is a bearer token: whoever reads it in a log is the workload until it expires.",
        fix="Set five minutes; 0 is the server's default.",
        standard="JWT-SVID section 3.3",
    ),
    Rule(
        id="federates-with-wildcard",
        title="Federation with a name that is not a trust domain",
        severity=Severity.HIGH,
        why="A wildcard names no trust domain. Federation is a decision about each partner.",
        fix="Name each partner.",
        standard=_FEDERATION,
    ),
    Rule(
        id="federates-with-unknown",
        title="Federation with an unknown trust domain",
        severity=Severity.MEDIUM,
        why="Once the server has its bundle, the workload trusts all workloads of that trust domain.",
        fix="Remove it, or name it with --federated if it is a partner.",
        standard=_FEDERATION,
    ),
    Rule(
        id="dns-name",
        title="A certificate with a wildcard, or an agent's with a host name",
        severity=Severity.MEDIUM,
        why="To clients that check host names, the holder is that server, and with a wildcard any server. An agent"
        " that is called through a sidecar needs no such name.",
        fix="Remove the DNS names of agents, and wildcards.",
        standard="X.509-SVID section 2",
    ),
    Rule(
        id="store-svid",
        title="The SVID and its key are written to a store",
        severity=Severity.HIGH,
        why="Nothing attests the reader: whoever may read the store is the workload.",
        fix="Remove store_svid, and let the workload use the Workload API.",
        standard="SPIRE: spire_agent, SVIDStore plugins",
    ),
    Rule(
        id="trust-domain-mismatch",
        title="Another trust domain than expected",
        severity=Severity.HIGH,
        why="A server signs only for its own trust domain: the entry grants no identity, or an unintended one.",
        fix="Write the trust domain of the server.",
        standard=_SPIFFE_ID,
    ),
    Rule(
        id="expired-entry",
        title="An entry that has expired",
        severity=Severity.LOW,
        why="It no longer grants an identity, and hides that the workload has none.",
        fix="Delete it, or register the workload again.",
        standard=_REGISTERING,
    ),
    Rule(
        id="unknown-selector",
        title="A selector that no attestor finds",
        severity=Severity.LOW,
        why="The entry never matches, because a process must have all of its selectors.",
        fix="Correct the kind of selector.",
        standard=f"{_K8S}; {_UNIX}; {_DOCKER}",
    ),
    Rule(
        id="every-pod",
        title="A ClusterSPIFFEID for every pod of the cluster",
        severity=Severity.MEDIUM,
        why="It selects neither pods nor namespaces, so every pod in the cluster gets an identity.",
        fix="Select the namespaces whose workloads need an identity.",
        standard=_TEMPLATES,
    ),
    Rule(
        id="template-without-service-account",
        title="An identity that does not depend on the ServiceAccount",
        severity=Severity.HIGH,
        why="All selected pods share one identity, or choose it by a label or name.",
        fix="Put the ServiceAccount into the template, or require one account.",
        standard=_TEMPLATES,
    ),
    Rule(
        id="template-without-namespace",
        title="An identity that does not depend on the namespace",
        severity=Severity.HIGH,
        why="ServiceAccounts of one name in two namespaces get the same identity.",
        fix="Put the namespace into the template as a segment of its own, or select one namespace.",
        standard=_TEMPLATES,
    ),
    Rule(
        id="populated-dns-names",
        title="Certificates name the Services of a pod",
        severity=Severity.MEDIUM,
        why="Whoever may create a Service that selects the pod chooses the host names in its certificate.",
        fix="Remove autoPopulateDNSNames.",
        standard=_TEMPLATES,
    ),
    Rule(
        id="actor-without-entry",
        title="An actor in the records without an entry",
        severity=Severity.MEDIUM,
        why="The actor's attestation is unknown: its entry is gone, or belongs to another server.",
        fix="Add the entries of the server that issued it; if no server did, find the reason.",
        standard="RFC 8693 section 4.1",
    ),
    Rule(
        id="unreadable-entry",
        title="An entry that cannot be read",
        severity=Severity.MEDIUM,
        why="An entry that cannot be read was not judged.",
        fix="Correct it, or export it again.",
        standard=_SPIFFE_ID,
    ),
)
RULE: Final = {rule.id: rule for rule in RULES}
