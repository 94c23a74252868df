"""SQL that joins calls to hops, and hops to their parents. Each step makes one table; the steps run in order.

A hop is a call with its token and its chain (``joins.py``). Its row holds record places, the texts for joins, and flags
for contradictions; all other texts of its records are looked up only for the few hops that need them.
"""

from __future__ import annotations

from typing import Final


def details(hops: str) -> str:
    """Return a query for the hops in table ``hops`` with columns of their records. Rows are wide: use it for few hops.

    Prefixes: ``c_`` the caller's record, ``e_`` the callee's, ``i_`` the exchange, ``t_`` the token. Column names that
    two joined tables share are listed one by one: from a star, ClickHouse would name them ``h.name``.
    """
    return f"""
        SELECT h.* EXCLUDE (token, chain, ts), h.token, h.chain, h.ts,
            c.peer AS c_peer, c.jti_out AS c_jti_out, c.txn AS c_txn, c.method AS c_method, c.path AS c_path,
            c.reason AS c_reason, c.trace_id AS c_trace, e.jti_in AS e_jti_in, e.txn AS e_txn, e.method AS e_method,
            e.path AS e_path, e.reason AS e_reason, e.decision AS e_decision, e.trace_id AS e_trace,
            e.subject AS e_subject, e.chain AS e_chain, e.actor AS e_actor, e.parent_jti AS e_parent_jti,
            coalesce(s.jti_in, x.jti_in) AS i_jti_in, t.iss AS t_iss, t.jti AS t_jti, t.head AS t_head,
            t.tail AS t_tail, coalesce(t.depth, 0) AS t_depth, t.parent_jti AS t_parent_jti,
            CASE WHEN h.unused THEN coalesce(s.peer, x.workload) ELSE coalesce(h.c_workload, h.e_peer) END AS actor,
            CASE WHEN h.e_place IS NOT NULL THEN h.e_workload
                WHEN h.c_place IS NULL THEN coalesce(s.audience, x.audience)
                WHEN h.c_allowed AND NOT coalesce(h.c_left, false) THEN coalesce(c.peer, c.audience)
                ELSE '"route ' || coalesce(substring(c.route, 2), 'None"') END AS audience
        FROM {hops} AS h
        LEFT JOIN ({_select_records(hops, "c_place")}) AS c ON c.place = h.c_place
        LEFT JOIN ({_select_records(hops, "e_place")}) AS e ON e.place = h.e_place
        LEFT JOIN ({_select_records(hops, "issued")}) AS s ON s.place = h.issued
        LEFT JOIN ({_select_records(hops, "exchanged")}) AS x ON x.place = h.exchanged
        LEFT JOIN (SELECT * FROM claims WHERE token IN (SELECT token FROM {hops})) AS t ON t.token = h.token
    """


def _select_records(hops: str, place: str) -> str:
    """Return a query for the records at ``place`` of these hops, so that no engine hashes all records for the join."""
    return f"SELECT * FROM records WHERE place IN (SELECT {place} FROM {hops})"


CALLS: Final[tuple[str, ...]] = (
    # --- requests that may belong to a chain
    """
    CREATE VIEW requests AS
    SELECT * FROM records WHERE event IN ('"request"', '"request.opened"') AND NOT outside
    """,
    # --- calls: both ends of a call, joined by its id; a second record of the same end counts as another call
    """
    CREATE TABLE second_ends AS
    SELECT e.place, e.call, s.first
    FROM (SELECT place, outbound, CASE WHEN outbound THEN call_out ELSE call_in END AS call FROM requests) AS e
    JOIN (
        SELECT CASE WHEN outbound THEN call_out ELSE call_in END AS call, outbound, min(place) AS first
        FROM requests GROUP BY 1, outbound HAVING count(*) > 1
    ) AS s ON s.call = e.call AND s.outbound = e.outbound AND s.first <> e.place
    """,
    """
    CREATE TABLE callers AS
    SELECT r.place AS c_place, CASE WHEN s.place IS NULL THEN r.call_out END AS c_key, r.call_out AS c_call,
        r.ts AS c_ts,
        r.workload AS c_workload, r.peer AS c_peer, r.subject_iss AS c_iss, r.jti_in AS c_jti_in,
        r.jti_out AS c_jti_out, r.method AS c_method, r.path AS c_path, r.call_in AS c_call_in,
        CASE WHEN r.verified THEN r.txn END AS c_txn, r.allowed AS c_allowed,
        r.decision IN ('"deny"', '"observed_deny"') AND NOT r.allowed AS c_denied,
        r.upstream_status IS NOT NULL AND r.peer IS NOT NULL AS c_sent,
        r.allowed AND r.jti_out IS NULL AND r.call_out IS NULL AND r.peer IS NULL AS c_left, t.token AS c_token
    FROM requests AS r LEFT JOIN told AS t ON t.place = r.place LEFT JOIN second_ends AS s ON s.place = r.place
    WHERE r.outbound
    """,
    """
    CREATE TABLE callees AS
    SELECT r.place AS e_place, CASE WHEN s.place IS NULL THEN r.call_in END AS e_key, r.call_in AS e_call, r.ts AS e_ts,
        r.workload AS e_workload, r.peer AS e_peer, r.subject_iss AS e_iss, r.jti_in AS e_jti_in,
        r.method AS e_method, r.path AS e_path, r.verified AS e_verified, CASE WHEN r.verified THEN r.txn END AS e_txn,
        r.allowed AS e_allowed, r.decision IN ('"deny"', '"observed_deny"') AND NOT r.allowed AS e_denied,
        r.allowed AND CASE WHEN r.chain IS NULL THEN r.subject ELSE r.actor END IS DISTINCT FROM r.peer AS other_actor,
        t.token AS e_token
    FROM requests AS r LEFT JOIN told AS t ON t.place = r.place LEFT JOIN second_ends AS s ON s.place = r.place
    WHERE NOT r.outbound
    """,
    # --- issues: the token service's record of a token and the caller's own; true if the token's actor requested it
    """
    CREATE TABLE issues AS
    SELECT token, min(issued) AS issued, min(exchanged) AS exchanged,
        count(issued) > 1 OR count(exchanged) > 1 AS repeated,
        arg_min(asked, issued) AS issued_to_actor, arg_min(asked, exchanged) AS exchanged_by_actor
    FROM (
        SELECT t.token, CASE WHEN NOT r.outbound THEN r.place END AS issued,
            CASE WHEN r.outbound THEN r.place END AS exchanged, t.asked
        FROM records AS r JOIN told AS t ON t.place = r.place WHERE r.event = '"token.exchanged"'
    ) AS i GROUP BY token
    """,
    # --- hops: a call, its token and its chain. `c_`: the caller's record. `e_`: the callee's. `other_`: these two
    # contradict each other or the token. A call that left the mesh (`c_left`) carries no token: only the caller has a
    # record of it
    """
    CREATE TABLE hops AS
    SELECT p.hop, p.call, p.token, p.c_place, p.e_place, i.issued, i.exchanged, p.c_call_in, p.c_jti_in,
        p.c_workload, p.e_workload, p.e_peer, p.e_token, p.c_allowed, p.e_allowed, p.c_sent,
        p.c_left,
        CASE WHEN p.e_place IS NULL THEN p.c_denied ELSE p.e_denied END AS denied,
        coalesce(w.chain, p.c_txn, p.e_txn) AS chain, coalesce(least(p.c_ts, p.e_ts), p.c_ts, p.e_ts) AS ts,
        false AS unused,
        p.c_call_in IS NULL AND (p.token IS NULL OR coalesce(t.depth, 0) > 1) AS seeks,
        p.c_place IS NOT NULL AND p.e_verified
            AND (p.c_iss IS DISTINCT FROM p.e_iss OR p.c_jti_out IS DISTINCT FROM p.e_jti_in) AS other_token,
        p.c_place IS NOT NULL AND p.e_place IS NOT NULL AND p.c_workload IS DISTINCT FROM p.e_peer AS other_caller,
        p.e_place IS NOT NULL AND p.c_peer IS NOT NULL AND p.c_peer IS DISTINCT FROM p.e_workload AS other_callee,
        p.c_method <> p.e_method AS other_method,
        -- a route may take a prefix off the path, or put one before it
        p.c_path <> p.e_path AND p.c_allowed AND p.e_path <> '"/"' AND p.c_path <> '"/"'
            AND NOT suffix(p.c_path, substring(p.e_path, 2)) AND NOT suffix(p.e_path, substring(p.c_path, 2))
            AS other_path,
        p.c_place IS NOT NULL AND t.parent_jti IS NOT NULL AND t.parent_jti IS DISTINCT FROM p.c_jti_in
            AS other_parent_token,
        p.other_actor,
        t.attestable AND t.head IS DISTINCT FROM p.c_workload AND t.head IS DISTINCT FROM p.e_peer
            AND NOT coalesce(i.issued_to_actor, false) AND NOT coalesce(i.exchanged_by_actor, false) AS unattested
    FROM (
        SELECT *, coalesce(c_place, e_place) AS hop, coalesce(c_call, e_call) AS call,
            coalesce(CASE WHEN c_allowed THEN c_token END, e_token) AS token
        FROM callers FULL JOIN callees ON c_key = e_key
    ) AS p
    LEFT JOIN issues AS i ON i.token = p.token
    LEFT JOIN claims AS t ON t.token = p.token
    LEFT JOIN way AS w ON w.token = p.token
    """,
    "DROP TABLE callers",
    "DROP TABLE callees",
    # --- tokens that no known call carried
    """
    INSERT INTO hops (hop, token, issued, exchanged, chain, ts, unused, seeks, unattested)
    SELECT coalesce(i.issued, i.exchanged), i.token, i.issued, i.exchanged, w.chain,
        coalesce(least(s.ts, x.ts), s.ts, x.ts), true, coalesce(t.depth, 0) > 1,
        t.attestable AND NOT coalesce(i.issued_to_actor, false) AND NOT coalesce(i.exchanged_by_actor, false)
    FROM (
        SELECT * FROM issues WHERE token NOT IN (SELECT token FROM hops WHERE token IS NOT NULL)
            AND token NOT IN (SELECT e_token FROM hops WHERE e_token IS NOT NULL)
    ) AS i
    LEFT JOIN records AS s ON s.place = i.issued
    LEFT JOIN records AS x ON x.place = i.exchanged
    LEFT JOIN claims AS t ON t.token = i.token
    LEFT JOIN way AS w ON w.token = i.token
    """,
    # --- doubts: the hops that a verdict or the search for parents reads
    """
    CREATE TABLE doubtful AS
    SELECT * FROM hops WHERE chain IS NOT NULL AND (denied OR other_token OR other_caller OR other_callee
        OR other_method OR other_path OR other_parent_token OR other_actor OR seeks)
    """,
    f"CREATE TABLE doubts AS {details('doubtful')}",
    # --- parents: the request that the caller was serving, by the call id in the caller's record
    """
    CREATE TABLE parents AS
    SELECT h.hop, p.hop AS parent, h.c_call_in AS missing
    FROM hops AS h
    LEFT JOIN (SELECT call, min(hop) AS hop FROM hops WHERE chain IS NOT NULL AND call IS NOT NULL GROUP BY call) AS p
        ON p.call = h.c_call_in
    WHERE h.chain IS NOT NULL AND h.c_call_in IS NOT NULL
    """,
    # --- without a call id: by the token, if exactly one request carried it; a trace id may choose among several
    """
    CREATE TABLE seekers AS
    SELECT hop, coalesce(t_head, actor) AS actor, c_place IS NOT NULL AS known,
        c_trace, e_trace,
        c_place IS NULL AND coalesce(e_decision IN ('"deny"', '"observed_deny"') AND NOT e_allowed, false) AS stranger,
        CASE WHEN c_place IS NOT NULL THEN c_jti_in WHEN issued IS NOT NULL OR exchanged IS NOT NULL THEN i_jti_in
            ELSE e_parent_jti END AS jti
    FROM doubts WHERE seeks
    """,
    """
    CREATE TABLE served AS
    SELECT h.hop, t.jti, h.e_workload AS workload, h.call IS NULL AS nameless, c.trace_id AS c_trace,
        e.trace_id AS e_trace
    FROM (SELECT DISTINCT jti FROM seekers) AS s
    JOIN claims AS t ON t.jti = s.jti
    JOIN hops AS h ON h.token = t.token
    LEFT JOIN records AS c ON c.place = h.c_place
    LEFT JOIN records AS e ON e.place = h.e_place
    WHERE h.chain IS NOT NULL AND (h.e_place IS NULL OR h.e_allowed)
    """,
    # number of possible parents without the hop itself, their minimum and maximum: avoids comparing pairs of hops
    """
    CREATE TABLE possible AS
    SELECT s.hop, sum(o.number) - max(CASE WHEN own.hop IS NULL THEN 0 ELSE 1 END) AS number,
        CASE WHEN min(o.low) = s.hop THEN max(o.high) ELSE min(o.low) END AS parent
    FROM seekers AS s
    JOIN (
        SELECT jti, workload, nameless, count(*) AS number, min(hop) AS low, max(hop) AS high
        FROM served GROUP BY jti, workload, nameless
    ) AS o ON o.jti = s.jti
    LEFT JOIN served AS own ON own.hop = s.hop AND own.jti = s.jti
        AND (own.workload IS NULL OR s.actor IS NULL OR own.workload = s.actor) AND (own.nameless OR NOT s.known)
    WHERE (o.workload IS NULL OR s.actor IS NULL OR o.workload = s.actor) AND (o.nameless OR NOT s.known)
    GROUP BY s.hop
    """,
    """
    CREATE TABLE traced AS
    SELECT s.hop, s.trace, sum(o.number) - max(CASE WHEN own.hop IS NULL THEN 0 ELSE 1 END) AS number,
        CASE WHEN min(o.low) = s.hop THEN max(o.high) ELSE min(o.low) END AS parent
    FROM (
        SELECT hop, jti, actor, known, c_trace AS trace FROM seekers
        UNION SELECT hop, jti, actor, known, e_trace FROM seekers
    ) AS s
    JOIN possible AS p ON p.hop = s.hop AND p.number > 1
    JOIN (
        SELECT jti, workload, nameless, trace, count(*) AS number, min(hop) AS low, max(hop) AS high
        FROM (
            SELECT hop, jti, workload, nameless, c_trace AS trace FROM served
            UNION SELECT hop, jti, workload, nameless, e_trace FROM served
        ) AS t GROUP BY jti, workload, nameless, trace
    ) AS o ON o.jti = s.jti AND o.trace = s.trace
    LEFT JOIN served AS own ON own.hop = s.hop AND own.jti = s.jti
        AND (own.workload IS NULL OR s.actor IS NULL OR own.workload = s.actor) AND (own.nameless OR NOT s.known)
    WHERE (o.workload IS NULL OR s.actor IS NULL OR o.workload = s.actor) AND (o.nameless OR NOT s.known)
    GROUP BY s.hop, s.trace
    """,
    """
    INSERT INTO parents
    SELECT s.hop,
        CASE WHEN p.number = 1 THEN p.parent WHEN t.hop IS NOT NULL THEN t.parent END,
        CASE WHEN coalesce(p.number, 0) = 0 AND NOT s.stranger THEN s.jti END
    FROM seekers AS s
    LEFT JOIN possible AS p ON p.hop = s.hop
    LEFT JOIN (
        SELECT hop, min(parent) AS parent FROM traced WHERE number > 0
        GROUP BY hop HAVING max(number) = 1 AND min(parent) = max(parent)
    ) AS t ON t.hop = s.hop
    WHERE s.jti IS NOT NULL
    """,
    # --- hops without a record, inferred from hops that refer to them by a call id or a token
    """
    CREATE TABLE parentless AS
    SELECT h.*, p.missing FROM parents AS p JOIN hops AS h ON h.hop = p.hop
    WHERE p.parent IS NULL AND p.missing IS NOT NULL
    """,
    f"""
    CREATE TABLE made AS
    SELECT -hop AS hop, missing, chain, iss, jti, actor, audience FROM (
        SELECT h.hop, h.missing, h.chain, h.t_iss AS iss,
            CASE WHEN h.c_place IS NOT NULL THEN h.c_jti_in WHEN h.issued IS NOT NULL OR h.exchanged IS NOT NULL
                THEN h.i_jti_in ELSE h.e_parent_jti END AS jti,
            l.head AS actor, h.actor AS audience,
            row_number() OVER (PARTITION BY h.missing ORDER BY h.ts, h.hop) AS number
        FROM ({details("parentless")}) AS h LEFT JOIN lists AS l ON l.text = h.t_tail
    ) AS makers WHERE number = 1
    """,
    """
    CREATE TABLE family AS
    SELECT p.hop, coalesce(p.parent, m.hop) AS parent, p.parent IS NULL AS is_made
    FROM parents AS p LEFT JOIN made AS m ON m.missing = p.missing AND p.parent IS NULL
    WHERE p.parent IS NOT NULL OR m.hop IS NOT NULL
    """,
    # --- tails of actor chains that are the chain of no recorded token
    """
    CREATE TABLE remembered AS
    SELECT DISTINCT w.chain AS name, c.chain FROM claims AS c JOIN way AS w ON w.token = c.token
    WHERE c.chain IS NOT NULL
    """,
    """
    CREATE TABLE orphans AS
    WITH RECURSIVE beginnings AS (
        SELECT c.token, w.chain AS name, c.head, c.tail
        FROM claims AS c JOIN way AS w ON w.token = c.token
        LEFT JOIN remembered AS r ON r.name = w.chain AND r.chain = c.tail
        WHERE c.depth > 1 AND r.chain IS NULL
        UNION ALL
        SELECT b.token, b.name, l.head, l.tail
        FROM beginnings AS b JOIN lists AS l ON l.text = b.tail WHERE l.depth > 1
    )
    SELECT b.token, b.name, b.head, b.tail FROM beginnings AS b
    LEFT JOIN remembered AS r ON r.name = b.name AND r.chain = b.tail
    LEFT JOIN (
        SELECT DISTINCT m.chain AS name, t.tail
        FROM made AS m JOIN family AS f ON f.parent = m.hop JOIN hops AS h ON h.hop = f.hop
        JOIN claims AS t ON t.token = h.token
    ) AS k ON k.name = b.name AND k.tail = b.tail
    WHERE r.chain IS NULL AND k.tail IS NULL
    """,
)

OUTSIDE: Final = """
CREATE TABLE outside AS
SELECT coalesce(CASE WHEN allowed THEN op END, reason, '"undecided"') AS name, count(*) AS number FROM records
WHERE outside OR event = '"connection.refused"'
    OR (event = '"token.exchange_refused"' AND verified IS DISTINCT FROM true)
    OR place IN (SELECT c_place FROM hops WHERE chain IS NULL UNION ALL SELECT e_place FROM hops WHERE chain IS NULL)
GROUP BY 1
"""
