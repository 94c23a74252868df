"""Joins records to tokens, tokens to calls, calls to chains: each step is one table, read from top to bottom.

Records come in any order, from many sidecars and their token services. The signed ``txn`` names the chain, ``jti`` and
``parent_jti`` join its tokens, call ids join the two ends of a call; unverified claims join nothing, and no step reads
a clock to order two records. Of two records in one place of a run the first read counts. Texts are JSON texts.
"""

from __future__ import annotations

from typing import Final

# The number of a row, in the order of lines, is its place.
KEPT: Final = """
CREATE TABLE kept (
    digest UBIGINT,
    event VARCHAR, ts VARCHAR, run VARCHAR, seq BIGINT, decision VARCHAR, reason VARCHAR,
    direction VARCHAR, workload VARCHAR, peer VARCHAR, subject VARCHAR, subject_iss VARCHAR, actor VARCHAR,
    chain VARCHAR, chain_depth BIGINT, audience VARCHAR, scope VARCHAR, scope_needed VARCHAR, route VARCHAR,
    op VARCHAR, method VARCHAR, path VARCHAR, status BIGINT, upstream_status BIGINT, jti_in VARCHAR, jti_out VARCHAR,
    parent_jti VARCHAR, txn VARCHAR, fp VARCHAR, call_in VARCHAR, call_out VARCHAR, request_id VARCHAR,
    trace_id VARCHAR, verified BOOLEAN, allowed BOOLEAN, outbound BOOLEAN, jti VARCHAR, outside BOOLEAN
)
"""
RECORDS: Final = "CREATE VIEW records AS SELECT rowid + 1 AS place, * FROM kept"

# Distinct lists: of actors with the current one, those before it and their number; of scopes with the set they name.
LISTS: Final = """
CREATE TABLE lists (
    text VARCHAR, head VARCHAR, tail VARCHAR, depth BIGINT, attestable BOOLEAN, named BIGINT, cut BOOLEAN
)
"""

STEPS: Final[tuple[str, ...]] = (
    # --- places: two records in one place of a run, and numbers that nobody used
    """
    CREATE TABLE numbered AS
    SELECT place, run, seq, before, twice FROM (
        SELECT place, run, seq,
            coalesce(lag(seq) OVER (PARTITION BY run ORDER BY seq, place), 0) AS before,
            coalesce(lag(seq) OVER (PARTITION BY run ORDER BY seq, place) = seq, false) AS twice
        FROM records
    ) AS numbers WHERE twice OR seq > before + 1
    """,
    """
    CREATE TABLE again AS
    SELECT r.place, r.run, r.seq, r.txn, r.digest AS digest
    FROM records AS r JOIN numbered AS n ON n.place = r.place WHERE n.twice
    """,
    """
    CREATE TABLE repeats AS
    SELECT a.place, a.run, a.seq, a.txn, f.place AS first, a.digest = f.digest AS same
    FROM again AS a JOIN records AS f ON f.run = a.run AND f.seq = a.seq
    WHERE f.place NOT IN (SELECT place FROM again)
    """,
    "DELETE FROM kept WHERE rowid + 1 IN (SELECT place FROM again)",
    # --- requests: an opening counts where no end of it was read, and then once
    """
    CREATE TABLE opened AS
    SELECT min(o.place) AS place FROM records AS o
    LEFT JOIN records AS c
        ON c.event = '"request"' AND c.run = o.run AND coalesce(c.request_id, '') = coalesce(o.request_id, '')
    WHERE o.event = '"request.opened"' AND c.place IS NULL
    GROUP BY o.run, o.request_id
    """,
    """DELETE FROM kept WHERE event = '"request.opened"' AND rowid + 1 NOT IN (SELECT place FROM opened)""",
    # --- tokens: named by issuer and jti, told of by `token`, a record of the token service if there
    # is one; every other record must agree with that one
    """
    CREATE TABLE firsts AS
    SELECT subject_iss AS iss, jti,
        coalesce(min(CASE WHEN event = '"token.exchanged"' AND NOT outbound THEN place END), min(place)) AS token
    FROM records WHERE jti IS NOT NULL GROUP BY subject_iss, jti
    """,
    """
    CREATE TABLE claims AS
    SELECT f.token, f.iss, f.jti, r.subject, r.chain, r.actor, r.audience, r.parent_jti, r.txn, r.fp,
        coalesce(s.named, 0) AS scope, coalesce(s.cut, false) AS cut, coalesce(l.depth, 0) AS depth, l.head,
        coalesce(l.tail, '') AS tail, coalesce(l.attestable, false) AS attestable
    FROM firsts AS f
    JOIN records AS r ON r.place = f.token
    LEFT JOIN lists AS l ON l.text = r.chain
    LEFT JOIN lists AS s ON s.text = r.scope
    """,
    """
    CREATE TABLE told AS
    SELECT r.place, c.token,
        r.subject <> c.subject AS subject,
        r.chain IS DISTINCT FROM c.chain AS chain,
        c.attestable AND r.chain = c.chain AND r.actor IS DISTINCT FROM c.actor AS actor,
        r.chain = c.chain AND c.depth <= 64 AND coalesce(r.chain_depth, c.depth) <> c.depth AS chain_depth,
        r.audience IS DISTINCT FROM c.audience AS audience,
        coalesce(s.named, 0) <> c.scope AS scope,
        r.txn IS DISTINCT FROM c.txn AS txn,
        r.fp IS DISTINCT FROM c.fp AS fp,
        coalesce(r.parent_jti <> c.parent_jti, false) AS parent_jti
    FROM records AS r
    JOIN claims AS c ON c.iss = r.subject_iss AND c.jti = r.jti
    LEFT JOIN lists AS s ON s.text = r.scope
    """,
    # --- lineage: the parent of a token, by its own issuer if that has such a jti, else by any issuer
    """
    CREATE TABLE lineage AS
    SELECT c.token, p.token AS parent FROM claims AS c JOIN claims AS p ON p.iss = c.iss AND p.jti = c.parent_jti
    """,
    """
    INSERT INTO lineage
    SELECT c.token, p.parent FROM claims AS c
    JOIN (SELECT jti, min(token) AS parent FROM claims GROUP BY jti) AS p ON p.jti = c.parent_jti
    WHERE c.token NOT IN (SELECT token FROM lineage)
    """,
    # --- the name of a token's chain: its txn, else that of the token it came from, else by its first token's jti
    """
    CREATE TABLE way AS
    SELECT c.token, l.parent AS up, c.jti AS least,
        CASE WHEN c.txn IS NOT NULL THEN c.txn WHEN p.txn IS NOT NULL THEN p.txn
            WHEN l.parent IS NULL
                THEN '"jti:' || substring(CASE WHEN c.depth < 2 THEN c.jti ELSE coalesce(c.parent_jti, c.jti) END, 2)
        END AS chain
    FROM claims AS c LEFT JOIN lineage AS l ON l.token = c.token LEFT JOIN claims AS p ON p.token = l.parent
    """,
)

# Each round doubles the number of tokens that a way skips, so a line of forged ones is walked in few rounds.
FURTHER: Final = (
    """
    CREATE TABLE further AS
    SELECT token, up, least, chain FROM way WHERE chain IS NOT NULL
    UNION ALL
    SELECT w.token, u.up, least(w.least, u.least) AS least, u.chain
    FROM way AS w JOIN way AS u ON u.token = w.up WHERE w.chain IS NULL
    """,
    "DROP TABLE way",
    "ALTER TABLE further RENAME TO way",
)
NAMELESS: Final = "SELECT count(*) FROM way WHERE chain IS NULL"
CIRCLES: Final = """UPDATE way SET chain = '"jti:' || substring(least, 2) WHERE chain IS NULL"""

CALLS: Final[tuple[str, ...]] = (
    # --- calls: the two ends of a call by its id; a second end with the same id is a call of its own
    """
    CREATE TABLE ends AS
    SELECT r.place, r.outbound, t.token, CASE WHEN r.outbound THEN r.call_out ELSE r.call_in END AS call
    FROM records AS r LEFT JOIN told AS t ON t.place = r.place
    WHERE r.event IN ('"request"', '"request.opened"') AND NOT r.outside
    """,
    """
    CREATE TABLE second_ends AS
    SELECT e.place, e.call, s.first FROM ends AS e
    JOIN (
        SELECT call, outbound, min(place) AS first FROM ends
        WHERE call IS NOT NULL GROUP BY call, outbound HAVING count(*) > 1
    ) AS s ON s.call = e.call AND s.outbound = e.outbound AND s.first <> e.place
    """,
    """
    CREATE TABLE callers AS
    SELECT e.place AS c_place, CASE WHEN s.place IS NULL THEN e.call END AS c_key, e.call AS c_call, r.ts AS c_ts,
        r.workload AS c_workload, r.peer AS c_peer, r.subject_iss AS c_iss, r.jti_in AS c_jti_in,
        r.jti_out AS c_jti_out, r.txn AS c_txn, r.method AS c_method, r.path AS c_path, r.reason AS c_reason,
        r.decision AS c_decision, r.allowed AS c_allowed, r.verified AS c_verified, r.call_in AS c_call_in,
        r.trace_id AS c_trace, r.audience AS c_audience, r.route AS c_route, r.upstream_status AS c_upstream,
        e.token AS c_token
    FROM ends AS e JOIN records AS r ON r.place = e.place LEFT JOIN second_ends AS s ON s.place = e.place
    WHERE e.outbound
    """,
    """
    CREATE TABLE callees AS
    SELECT e.place AS e_place, CASE WHEN s.place IS NULL THEN e.call END AS e_key, e.call AS e_call, r.ts AS e_ts,
        r.workload AS e_workload, r.peer AS e_peer, r.subject_iss AS e_iss, r.jti_in AS e_jti_in, r.txn AS e_txn,
        r.method AS e_method, r.path AS e_path, r.reason AS e_reason, r.decision AS e_decision,
        r.allowed AS e_allowed, r.verified AS e_verified, r.trace_id AS e_trace, r.subject AS e_subject,
        r.chain AS e_chain, r.actor AS e_actor, r.parent_jti AS e_parent_jti, e.token AS e_token
    FROM ends AS e JOIN records AS r ON r.place = e.place LEFT JOIN second_ends AS s ON s.place = e.place
    WHERE NOT e.outbound
    """,
    """
    CREATE TABLE issues AS
    SELECT t.token, min(CASE WHEN NOT r.outbound THEN r.place END) AS issued,
        min(CASE WHEN r.outbound THEN r.place END) AS exchanged
    FROM records AS r JOIN told AS t ON t.place = r.place
    WHERE r.event = '"token.exchanged"' GROUP BY t.token
    """,
    """
    CREATE VIEW pairs AS
    SELECT *, coalesce(c_place, e_place) AS hop, coalesce(c_call, e_call) AS call, coalesce(c_key, e_key) AS key,
        coalesce(CASE WHEN c_allowed THEN c_token END, e_token) AS token
    FROM callers FULL JOIN callees ON c_key = e_key
    UNION ALL
    -- tokens that no known call has carried
    SELECT c.*, e.*, coalesce(i.issued, i.exchanged) AS hop, NULL AS call, NULL AS key, i.token
    FROM issues AS i LEFT JOIN callers AS c ON c.c_place < 0 LEFT JOIN callees AS e ON e.e_place < 0
    WHERE NOT EXISTS (SELECT 1 FROM callers AS u WHERE u.c_allowed AND u.c_token = i.token)
        AND NOT EXISTS (SELECT 1 FROM callees AS u WHERE u.e_token = i.token)
    """,
    # --- hops: a call, its token, and the chain that it belongs to. `c_` is of the caller's record, `e_` of the
    # callee's, `i_` of the token service's, `x_` of the caller's own of the exchange, `t_` of the token
    """
    CREATE TABLE hops AS
    SELECT p.*, i.issued, i.exchanged, s.peer AS i_peer, coalesce(s.jti_in, x.jti_in) AS i_jti_in,
        x.workload AS x_workload, t.iss AS t_iss, t.jti AS t_jti, t.chain AS t_chain, t.head AS t_head,
        t.tail AS t_tail, coalesce(t.depth, 0) AS t_depth, t.parent_jti AS t_parent_jti,
        t.attestable AS t_attestable,
        coalesce(w.chain, CASE WHEN p.c_verified THEN p.c_txn END, CASE WHEN p.e_verified THEN p.e_txn END) AS chain,
        CASE WHEN p.call IS NULL AND p.c_place IS NULL AND p.e_place IS NULL
            THEN coalesce(s.peer, x.workload) ELSE coalesce(p.c_workload, p.e_peer) END AS actor,
        CASE WHEN p.e_place IS NOT NULL THEN p.e_workload
            WHEN p.c_place IS NULL THEN coalesce(s.audience, x.audience)
            WHEN p.c_allowed THEN coalesce(p.c_peer, p.c_audience)
            ELSE '"route ' || coalesce(substring(p.c_route, 2), 'None"') END AS audience,
        coalesce(least(p.c_ts, p.e_ts), p.c_ts, p.e_ts, least(s.ts, x.ts), s.ts, x.ts) AS ts,
        p.c_place IS NULL AND p.e_place IS NULL AS unused
    FROM pairs AS p
    LEFT JOIN issues AS i ON i.token = p.token
    LEFT JOIN records AS s ON s.place = i.issued
    LEFT JOIN records AS x ON x.place = i.exchanged
    LEFT JOIN claims AS t ON t.token = p.token
    LEFT JOIN way AS w ON w.token = p.token
    """,
    "DROP VIEW pairs",
    "DROP TABLE callers",
    "DROP TABLE callees",
    # --- parents: the request that a caller was serving, by the call id in its record
    """
    CREATE TABLE parents AS
    SELECT h.hop, p.hop AS parent, h.c_call_in AS missing
    FROM hops AS h
    LEFT JOIN (SELECT call, min(hop) AS hop FROM hops WHERE chain IS NOT NULL AND call IS NOT NULL GROUP BY call) AS p
        ON p.call = h.c_call_in
    WHERE h.chain IS NOT NULL AND h.c_call_in IS NOT NULL
    """,
    # --- else by the token alone, if just one request had it; a trace id only tells such requests apart
    """
    CREATE TABLE seekers AS
    SELECT hop, t_iss, coalesce(t_head, actor) AS actor, c_place IS NOT NULL AS known,
        c_trace, e_trace, c_place IS NULL AND e_decision IS NOT DISTINCT FROM '"deny"' AS stranger,
        CASE WHEN c_place IS NOT NULL THEN c_jti_in WHEN issued IS NOT NULL OR exchanged IS NOT NULL THEN i_jti_in
            ELSE e_parent_jti END AS jti
    FROM hops
    WHERE chain IS NOT NULL AND c_call_in IS NULL AND NOT (token IS NOT NULL AND t_depth < 2)
    """,
    """
    CREATE TABLE served AS
    SELECT h.hop, h.t_jti AS jti, e_workload AS workload, call IS NULL AS nameless, c_trace, e_trace
    FROM hops AS h JOIN (SELECT DISTINCT jti FROM seekers) AS s ON s.jti = h.t_jti
    WHERE h.chain IS NOT NULL AND (h.e_place IS NULL OR h.e_allowed)
    """,
    # how many there are, less the hop itself, and the least and the greatest of them: no pair of hops is compared
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
    # --- hops without any record, which others refer to: named by the call or the token that leads there
    """
    CREATE TABLE made AS
    SELECT -hop AS hop, missing, chain, iss, jti, actor, audience FROM (
        SELECT p.hop, p.missing, h.chain, h.t_iss AS iss,
            CASE WHEN h.c_place IS NOT NULL THEN h.c_jti_in WHEN h.issued IS NOT NULL OR h.exchanged IS NOT NULL
                THEN h.i_jti_in ELSE h.e_parent_jti END AS jti,
            l.head AS actor, h.actor AS audience,
            row_number() OVER (PARTITION BY p.missing ORDER BY h.ts, h.hop) AS number
        FROM parents AS p JOIN hops AS h ON h.hop = p.hop LEFT JOIN lists AS l ON l.text = h.t_tail
        WHERE p.parent IS NULL AND p.missing IS NOT NULL
    ) AS makers WHERE number = 1
    """,
    """
    CREATE TABLE family AS
    SELECT p.hop, coalesce(p.parent, m.hop) AS parent, p.parent IS NULL AS is_made
    FROM parents AS p LEFT JOIN made AS m ON m.missing = p.missing AND p.parent IS NULL
    WHERE p.parent IS NOT NULL OR m.hop IS NOT NULL
    """,
    # --- the ends of actor chains that are the chain of no token: of each, every end that begins with another actor
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
        SELECT DISTINCT m.chain AS name, h.t_tail AS tail
        FROM made AS m JOIN family AS f ON f.parent = m.hop JOIN hops AS h ON h.hop = f.hop
    ) AS k ON k.name = b.name AND k.tail = b.tail
    WHERE r.chain IS NULL AND k.tail IS NULL
    """,
)

# Pairs of scope sets that one must not exceed the other: their difference is looked at once for each pair.
SCOPES: Final = """
SELECT DISTINCT t.scope, p.scope FROM lineage AS l
JOIN claims AS t ON t.token = l.token JOIN claims AS p ON p.token = l.parent WHERE t.scope <> p.scope
UNION
SELECT DISTINCT s.named, n.named FROM records AS r
JOIN lists AS s ON s.text = r.scope JOIN lists AS n ON n.text = r.scope_needed
WHERE r.event = '"token.exchanged"' AND s.named <> n.named
"""

OUTSIDE: Final = """
CREATE TABLE outside AS
SELECT coalesce(CASE WHEN allowed THEN op END, reason, '"undecided"') AS name, count(*) AS number FROM records
WHERE outside OR event = '"connection.refused"'
    OR (event = '"token.exchange_refused"' AND verified IS DISTINCT FROM true)
    OR place IN (SELECT c_place FROM hops WHERE chain IS NULL UNION ALL SELECT e_place FROM hops WHERE chain IS NULL)
GROUP BY 1
"""
