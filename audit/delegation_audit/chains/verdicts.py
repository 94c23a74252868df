"""SQL of the verdicts, one statement each, over the joined records: they compare records, and trust no single one.

A row of ``findings`` has a kind (``findings.py``), the rule whose sentence states it, the chain, and the values for the
sentence: a hop, and the JSON texts ``a``, ``b`` and ``c``. ``evidence`` lists the places of the records.
"""

from __future__ import annotations

from typing import Final

FINDINGS: Final = """
CREATE TABLE findings (
    kind VARCHAR, rule VARCHAR, chain VARCHAR, hop BIGINT, a VARCHAR, b VARCHAR, c VARCHAR, evidence VARCHAR
)
"""

_HOP: Final = """concat_ws(',', c_place, issued, exchanged, e_place)"""

VERDICTS: Final[tuple[str, ...]] = (
    # --- streams: places in runs
    """
    SELECT CASE WHEN same THEN 'repeated_record' ELSE 'forged_record' END,
        CASE WHEN same THEN 'repeated_record' ELSE 'forged_record' END,
        txn, NULL, run, seq::VARCHAR, NULL, concat_ws(',', first, place)
    FROM repeats
    """,
    """
    SELECT 'records_lost', 'records_lost', NULL, NULL, run, (before + 1)::VARCHAR, (seq - 1)::VARCHAR, place::VARCHAR
    FROM numbered WHERE NOT twice
    """,
    # --- requests that were opened and never closed
    """
    SELECT 'unfinished', 'unfinished', r.txn, NULL, r.workload, r.request_id, NULL, r.place::VARCHAR
    FROM records AS r WHERE r.event = '"request.opened"'
    """,
    # --- tokens: all records of one token must agree
    """
    SELECT 'witnesses_disagree', 'token_differs', c.txn, NULL, c.jti,
        '"' || concat_ws(', ', max(CASE WHEN t.actor THEN 'actor' END), max(CASE WHEN t.audience THEN 'audience' END),
            max(CASE WHEN t.chain THEN 'chain' END), max(CASE WHEN t.chain_depth THEN 'chain_depth' END),
            max(CASE WHEN t.fp THEN 'fp' END), max(CASE WHEN t.parent_jti THEN 'parent_jti' END),
            max(CASE WHEN t.scope THEN 'scope' END), max(CASE WHEN t.subject THEN 'subject' END),
            max(CASE WHEN t.txn THEN 'txn' END)) || '"',
        NULL, concat_ws(',', c.token, CASE WHEN min(t.place) <> c.token THEN min(t.place) END,
            CASE WHEN max(t.place) <> min(t.place) THEN max(t.place) END)
    FROM told AS t JOIN claims AS c ON c.token = t.token
    WHERE t.subject OR t.chain OR t.actor OR t.chain_depth OR t.audience OR t.scope OR t.txn OR t.fp OR t.parent_jti
    GROUP BY c.token, c.txn, c.jti
    """,
    """
    SELECT 'witnesses_disagree', 'issued_twice', r.txn, NULL, r.jti_out, NULL, NULL,
        concat_ws(',', CASE WHEN r.outbound THEN i.exchanged ELSE i.issued END, r.place)
    FROM issues AS i JOIN told AS t ON t.token = i.token JOIN records AS r ON r.place = t.place
    WHERE i.repeated AND r.event = '"token.exchanged"'
        AND r.place <> CASE WHEN r.outbound THEN i.exchanged ELSE i.issued END
    """,
    # --- lineage: each token must follow from its parent. The token service's policy decides what a login token may
    # become, and the scopes of a token from another issuer's
    """
    SELECT 'splice', 'other_txn', t.txn, NULL, t.jti, p.jti, p.txn, concat_ws(',', p.token, t.token)
    FROM lineage AS l JOIN claims AS t ON t.token = l.token JOIN claims AS p ON p.token = l.parent
    WHERE p.txn IS NOT NULL AND p.txn IS DISTINCT FROM t.txn AND (p.chain IS NOT NULL OR t.depth <> 1)
    """,
    """
    SELECT 'splice', 'other_subject', t.txn, NULL, t.jti, t.subject, p.subject, concat_ws(',', p.token, t.token)
    FROM lineage AS l JOIN claims AS t ON t.token = l.token JOIN claims AS p ON p.token = l.parent
    LEFT JOIN crossed AS x ON x.token = t.token AND x.iss = p.iss
    WHERE (p.subject <> t.subject OR p.iss <> t.iss) AND (p.chain IS NOT NULL OR t.depth <> 1)
        -- beyond a crossing the subject has a prefix
        AND (x.token IS NULL OR length(t.subject) <= length(p.subject)
            OR NOT suffix(t.subject, substring(p.subject, 2)))
    """,
    """
    SELECT 'chain_broken', 'chain_differs', t.txn, NULL, t.jti, t.chain, p.chain, concat_ws(',', p.token, t.token)
    FROM lineage AS l JOIN claims AS t ON t.token = l.token JOIN claims AS p ON p.token = l.parent
    WHERE (t.chain IS NULL OR t.tail <> coalesce(p.chain, '[]')) AND (p.chain IS NOT NULL OR t.depth <> 1)
    """,
    """
    SELECT 'scope_widened', 'wider_than_parent', t.txn, NULL, t.jti, r.scope, q.scope, concat_ws(',', p.token, t.token)
    FROM lineage AS l JOIN claims AS t ON t.token = l.token JOIN claims AS p ON p.token = l.parent
    JOIN wider AS w ON w.named = t.scope AND w.than = p.scope
    JOIN records AS r ON r.place = t.token JOIN records AS q ON q.place = p.token
    LEFT JOIN crossed AS x ON x.token = t.token AND x.iss = p.iss
    WHERE NOT t.cut AND NOT p.cut AND (p.chain IS NOT NULL OR t.depth <> 1) AND x.token IS NULL
    """,
    # --- issues: the new actor itself must have requested the token, which must hold no more than requested
    """
    SELECT 'chain_broken', 'issued_to_another', r.txn, NULL, r.jti_out,
        CASE WHEN r.outbound THEN r.workload ELSE r.peer END, l.head, r.place::VARCHAR
    FROM records AS r JOIN told AS t ON t.place = r.place JOIN lists AS l ON l.text = r.chain
    WHERE r.event = '"token.exchanged"' AND l.attestable
        AND CASE WHEN r.outbound THEN r.workload ELSE r.peer END <> l.head
    """,
    """
    SELECT 'scope_widened', 'wider_than_asked', r.txn, NULL, r.jti_out, r.scope, r.scope_needed, r.place::VARCHAR
    FROM records AS r JOIN told AS t ON t.place = r.place
    JOIN lists AS s ON s.text = r.scope JOIN lists AS n ON n.text = r.scope_needed
    JOIN wider AS w ON w.named = s.named AND w.than = n.named
    WHERE r.event = '"token.exchanged"' AND NOT s.cut
    """,
    # --- calls
    """
    SELECT 'repeated_call', 'repeated_call', n.txn, NULL, s.call, f.workload, n.workload,
        concat_ws(',', s.first, s.place)
    FROM second_ends AS s JOIN records AS f ON f.place = s.first JOIN records AS n ON n.place = s.place
    """,
    # --- hops that only an actor chain names: each tail of a chain must be the chain of some token of the same txn
    """
    SELECT 'missing_hop', 'remembered', o.name, NULL, n.head, o.head, NULL, min(o.token)::VARCHAR
    FROM orphans AS o JOIN lists AS n ON n.text = o.tail GROUP BY o.name, o.tail, n.head, o.head
    """,
    """
    SELECT 'missing_hop', 'no_record', m.chain, m.hop, NULL, NULL, NULL, concat_ws(',', min(h.hop),
        CASE WHEN max(h.hop) <> min(h.hop) THEN max(h.hop) END)
    FROM made AS m JOIN family AS f ON f.parent = m.hop JOIN hops AS h ON h.hop = f.hop GROUP BY m.chain, m.hop
    """,
    # --- refusals, and the attempts that they show
    """
    SELECT CASE WHEN e_decision = '"observed_deny"' THEN 'observed_hop' ELSE 'refused_hop' END,
        CASE WHEN e_decision = '"observed_deny"' THEN 'observed' ELSE 'refused' END, chain, hop,
        CASE WHEN e_place IS NULL THEN '"its own sidecar"' ELSE e_workload END,
        CASE WHEN e_place IS NULL THEN c_reason ELSE e_reason END, NULL, coalesce(e_place, c_place)::VARCHAR
    FROM doubts WHERE denied
    """,
    """
    SELECT 'refused_hop', 'refused_exchange', r.txn, NULL, CASE WHEN r.outbound THEN r.workload ELSE r.peer END,
        r.audience, r.reason, r.place::VARCHAR
    FROM records AS r
    WHERE r.event = '"token.exchange_refused"' AND r.verified
        AND NOT EXISTS (SELECT 1 FROM hops AS h WHERE h.chain IS NOT NULL AND h.c_place IS NOT NULL
            AND h.c_workload = CASE WHEN r.outbound THEN r.workload ELSE r.peer END AND h.c_jti_in = r.jti_in
            AND h.denied)
        AND NOT (r.outbound AND EXISTS (SELECT 1 FROM records AS s WHERE s.event = '"token.exchange_refused"'
            AND NOT s.outbound AND s.peer = r.workload AND s.jti_in = r.jti_in))
    """,
    """
    SELECT 'attempt_to_leave', 'attempt_to_leave', h.chain, h.hop, r.workload,
        coalesce(r.route, r.path, '"an unknown target"'), r.reason,
        r.place::VARCHAR
    FROM records AS r LEFT JOIN hops AS h ON h.hop = r.place
    WHERE r.event = '"request"' AND r.outbound AND r.decision = '"deny"' AND NOT r.allowed
        AND (r.host IS NULL OR r.reason <> '"target_denied"')
        AND r.reason IN ('"call_not_allowed"', '"no_route"', '"target_denied"')
    """,
    """
    SELECT 'attempt_to_leave', CASE WHEN r.verified THEN 'tried_to_reach' ELSE 'tried_without_handle' END, h.chain,
        h.hop, r.workload, r.host, CASE WHEN r.verified THEN r.subject END, r.place::VARCHAR
    FROM records AS r LEFT JOIN hops AS h ON h.hop = r.place
    WHERE r.event = '"request"' AND r.outbound AND r.decision = '"deny"' AND NOT r.allowed
        AND r.reason = '"target_denied"' AND r.host IS NOT NULL
    """,
    """
    SELECT 'impersonation', 'impersonation', h.chain, h.hop, r.peer, coalesce(r.actor, r.subject), r.workload,
        r.place::VARCHAR
    FROM records AS r LEFT JOIN hops AS h ON h.hop = r.place
    WHERE r.event = '"request"' AND NOT r.outbound AND r.decision IN ('"deny"', '"observed_deny"') AND NOT r.allowed
        AND r.reason IN ('"actor_mismatch"', '"act_missing"')
    """,
    # --- witnesses
    f"""
    SELECT 'missing_witness', 'missing_witness', chain, hop, '"caller"', NULL, NULL, {_HOP}
    FROM hops WHERE chain IS NOT NULL AND ((e_allowed AND c_place IS NULL) OR (unused AND exchanged IS NULL))
    """,
    f"""
    SELECT 'missing_witness', 'missing_witness', chain, hop, '"token service"', NULL, NULL, {_HOP}
    FROM hops WHERE chain IS NOT NULL AND issued IS NULL
        AND (e_allowed OR (c_allowed AND NOT coalesce(c_left, false)) OR unused)
    """,
    f"""
    SELECT 'missing_witness', 'missing_witness', chain, hop, '"callee"', NULL, NULL, {_HOP}
    FROM hops WHERE chain IS NOT NULL AND e_place IS NULL
        AND (c_sent OR hop IN (SELECT parent FROM family))
    """,
    # --- the two ends of one call must agree on token, caller, callee and request
    """
    SELECT 'splice', 'other_token', chain, hop, c_jti_out, e_jti_in, CASE WHEN c_txn IS DISTINCT FROM e_txn THEN
        coalesce(e_txn, '"None"') END, concat_ws(',', c_place, e_place)
    FROM doubts WHERE other_token
    """,
    """
    SELECT 'witnesses_disagree', 'other_caller', chain, hop, c_workload, e_peer, NULL, concat_ws(',', c_place, e_place)
    FROM doubts WHERE other_caller
    """,
    """
    SELECT 'witnesses_disagree', 'other_callee', chain, hop, c_peer, e_workload, NULL, concat_ws(',', c_place, e_place)
    FROM doubts WHERE other_callee
    """,
    """
    SELECT 'witnesses_disagree', 'other_method', chain, hop, c_method, e_method, NULL, concat_ws(',', c_place, e_place)
    FROM doubts WHERE other_method
    """,
    """
    SELECT 'witnesses_disagree', 'other_path', chain, hop, c_path, e_path, NULL, concat_ws(',', c_place, e_place)
    FROM doubts WHERE other_path
    """,
    # --- a call must belong to a request served at the same workload, in the same chain, with the parent token
    """
    SELECT 'splice', 'other_chain', h.chain, h.hop, coalesce(p.chain, m.chain), NULL, NULL,
        concat_ws(',', p.c_place, p.e_place, h.c_place)
    FROM family AS f JOIN hops AS h ON h.hop = f.hop LEFT JOIN hops AS p ON p.hop = f.parent
    LEFT JOIN made AS m ON m.hop = f.parent
    WHERE h.c_place IS NOT NULL AND coalesce(p.chain, m.chain) <> h.chain
    """,
    """
    SELECT 'splice', 'other_request_token', h.chain, h.hop, h.c_jti_in, coalesce(t.jti, m.jti), NULL,
        concat_ws(',', p.c_place, p.e_place, h.c_place)
    FROM family AS f JOIN hops AS h ON h.hop = f.hop LEFT JOIN hops AS p ON p.hop = f.parent
    LEFT JOIN claims AS t ON t.token = p.token
    LEFT JOIN made AS m ON m.hop = f.parent AND m.iss IS NOT NULL
    WHERE h.c_place IS NOT NULL AND coalesce(p.chain, m.chain) = h.chain
        AND coalesce(t.jti, m.jti) IS NOT NULL AND h.c_jti_in IS DISTINCT FROM coalesce(t.jti, m.jti)
    """,
    """
    SELECT 'splice', 'served_elsewhere', h.chain, h.hop, p.e_workload, NULL, NULL,
        concat_ws(',', p.c_place, p.e_place, h.c_place)
    FROM family AS f JOIN hops AS h ON h.hop = f.hop JOIN hops AS p ON p.hop = f.parent
    WHERE h.c_place IS NOT NULL AND p.e_workload IS DISTINCT FROM h.c_workload AND p.e_workload IS NOT NULL
    """,
    f"""
    SELECT 'splice', 'other_parent_token', chain, hop, t_jti, t_parent_jti, c_jti_in, {_HOP}
    FROM doubts WHERE other_parent_token AND hop IN (SELECT hop FROM family)
    """,
    # --- an accepted peer must be the current actor of its token, or an agent that acts for itself
    """
    SELECT 'actor_not_peer', 'actor_not_peer', chain, hop, e_workload, e_peer,
        CASE WHEN e_chain IS NULL OR e_chain = '[]' THEN '"no actor"' ELSE coalesce(e_actor, '"None"') END,
        e_place::VARCHAR
    FROM doubts WHERE other_actor
    """,
    """
    SELECT 'token_at_two_peers', 'token_at_two_peers', min(h.chain), NULL, t.jti, min(h.e_peer), max(h.e_peer),
        concat_ws(',', arg_min(h.e_place, h.e_peer), arg_max(h.e_place, h.e_peer))
    FROM hops AS h JOIN claims AS t ON t.token = h.e_token
    JOIN (SELECT e_token FROM hops WHERE e_token IS NOT NULL GROUP BY e_token HAVING count(*) > 1) AS s
        ON s.e_token = h.e_token
    WHERE h.chain IS NOT NULL GROUP BY t.token, t.jti HAVING min(h.e_peer) <> max(h.e_peer)
    """,
    # --- an actor that no witness of its chain saw on a connection, and that has no record of its own
    """
    SELECT 'actor_never_attested', 'actor_never_attested', u.chain, NULL, t.jti, t.head, NULL, min(u.hop)::VARCHAR
    FROM hops AS u JOIN claims AS t ON t.token = u.token
    LEFT JOIN (
        SELECT h.chain, h.c_workload AS seen FROM hops AS h WHERE h.chain IN (SELECT chain FROM hops WHERE unattested)
        UNION SELECT h.chain, h.e_workload FROM hops AS h WHERE h.chain IN (SELECT chain FROM hops WHERE unattested)
        UNION SELECT h.chain, h.e_peer FROM hops AS h WHERE h.chain IN (SELECT chain FROM hops WHERE unattested)
        UNION SELECT h.chain, r.peer FROM hops AS h JOIN records AS r ON r.place = h.issued
            WHERE h.chain IN (SELECT chain FROM hops WHERE unattested)
    ) AS s ON s.chain = u.chain AND s.seen = t.head
    WHERE u.chain IS NOT NULL AND u.unattested AND s.seen IS NULL GROUP BY u.chain, t.jti, t.head
    """,
    # --- authority without origin: an accepted token that its token service never issued, although its records have no
    # gap and continue for 5 minutes. Minutes, because clocks are skewed
    f"""
    SELECT 'orphan_authority', 'orphan_authority', h.chain, h.hop, t.jti, t.iss, h.e_workload, {_HOP}
    FROM hops AS h JOIN claims AS t ON t.token = h.token
    JOIN (
        SELECT subject_iss AS iss, max(ts) AS until FROM records
        WHERE event = '"token.exchanged"' AND NOT outbound GROUP BY subject_iss
    ) AS s ON s.iss = t.iss
    WHERE h.chain IS NOT NULL AND h.e_allowed AND h.issued IS NULL
        AND epoch(TRY_CAST(trim(s.until, '"') AS TIMESTAMP) - TRY_CAST(trim(h.ts, '"') AS TIMESTAMP)) > 300
        AND t.iss NOT IN (
            SELECT r.subject_iss FROM (
                SELECT DISTINCT subject_iss, run FROM records
                WHERE event = '"token.exchanged"' AND NOT outbound AND subject_iss IS NOT NULL
            ) AS r JOIN numbered AS n ON n.run = r.run AND NOT n.twice)
    """,
)
