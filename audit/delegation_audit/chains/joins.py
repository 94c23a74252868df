"""SQL that joins records to tokens, and tokens to chains. Each step makes one table; the steps run in order.

Records come in any order, from many sidecars and their token services. The signed ``txn`` names the chain, ``jti`` and
``parent_jti`` join its tokens, call ids join the two ends of a call. Unverified claims join nothing, and no step orders
records by clocks. Of two records with one run and seq, the first one read counts. Texts are JSON texts.
"""

from __future__ import annotations

from typing import Final

# The place of a record is its row number; rows are in the order of lines.
KEPT: Final = """
CREATE TABLE kept (
    digest UBIGINT,
    event VARCHAR, ts VARCHAR, run VARCHAR, seq BIGINT, decision VARCHAR, reason VARCHAR,
    direction VARCHAR, workload VARCHAR, peer VARCHAR, subject VARCHAR, subject_iss VARCHAR, actor VARCHAR,
    chain VARCHAR, chain_depth BIGINT, audience VARCHAR, scope VARCHAR, scope_needed VARCHAR, route VARCHAR,
    op VARCHAR, method VARCHAR, path VARCHAR, status BIGINT, upstream_status BIGINT, jti_in VARCHAR, jti_out VARCHAR,
    parent_jti VARCHAR, txn VARCHAR, fp VARCHAR, host VARCHAR, crossed_from VARCHAR, call_in VARCHAR,
    call_out VARCHAR, request_id VARCHAR, trace_id VARCHAR, verified BOOLEAN,
    allowed BOOLEAN, outbound BOOLEAN, jti VARCHAR, outside BOOLEAN
)
"""
RECORDS: Final = "CREATE VIEW records AS SELECT rowid + 1 AS place, * FROM kept"

# Distinct lists: `head` and `tail` of actors, `depth` their number; `named` the number of the set of scopes.
LISTS: Final = """
CREATE TABLE lists (
    text VARCHAR, head VARCHAR, tail VARCHAR, depth BIGINT, attestable BOOLEAN, named BIGINT, cut BOOLEAN
)
"""

STEPS: Final[tuple[str, ...]] = (
    # --- places: several records with one run and seq, and gaps in the numbers of a run
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
    # --- requests: an opening counts once, and only if no closing record was read
    """
    CREATE TABLE opened AS
    SELECT min(o.place) AS place FROM records AS o
    LEFT JOIN records AS c
        ON c.event = '"request"' AND c.run = o.run AND coalesce(c.request_id, '') = coalesce(o.request_id, '')
    WHERE o.event = '"request.opened"' AND c.place IS NULL
    GROUP BY o.run, o.request_id
    """,
    """DELETE FROM kept WHERE event = '"request.opened"' AND rowid + 1 NOT IN (SELECT place FROM opened)""",
    # --- tokens: identified by issuer and jti. `token` is the place of the record whose claims count: the token
    # service's if there is one; all other records must agree with it
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
        coalesce(r.parent_jti <> c.parent_jti, false) AS parent_jti,
        CASE WHEN r.outbound THEN r.workload ELSE r.peer END IS NOT DISTINCT FROM c.head AS asked
    FROM records AS r
    JOIN claims AS c ON c.iss = r.subject_iss AND c.jti = r.jti
    LEFT JOIN lists AS s ON s.text = r.scope
    """,
    # --- tokens exchanged for a token of another issuer: every record of the exchange must name the same issuer
    """
    CREATE TABLE crossed AS
    SELECT t.token, min(r.crossed_from) AS iss
    FROM records AS r JOIN told AS t ON t.place = r.place
    WHERE (r.outbound OR r.event = '"token.exchanged"') AND t.token IN (
        SELECT o.token FROM records AS s JOIN told AS o ON o.place = s.place WHERE s.crossed_from IS NOT NULL)
    GROUP BY t.token HAVING count(*) = count(r.crossed_from) AND min(r.crossed_from) = max(r.crossed_from)
    """,
    # --- lineage: the parent of a token: of the same issuer if it issued such a jti, else of any issuer
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
    # --- the name of a token's chain: its txn, else its parent's txn, else the jti of the first token
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

# Each round doubles the number of ancestors that a way skips, so few rounds walk even a long line of forged tokens.
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

# Pairs of scope sets of which the first must not exceed the second; each pair is compared once.
SCOPES: Final = """
SELECT DISTINCT t.scope, p.scope FROM lineage AS l
JOIN claims AS t ON t.token = l.token JOIN claims AS p ON p.token = l.parent WHERE t.scope <> p.scope
UNION
SELECT DISTINCT s.named, n.named FROM records AS r
JOIN lists AS s ON s.text = r.scope JOIN lists AS n ON n.text = r.scope_needed
WHERE r.event = '"token.exchanged"' AND s.named <> n.named
"""
