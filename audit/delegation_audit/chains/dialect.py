"""Translates the judge's statements from DuckDB's dialect to ClickHouse's: by sqlglot, and a rule for each difference.

ClickHouse runs them with ``SETTINGS``, for example so that an outer join fills with NULL, as in standard SQL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

SETTINGS: Final[Mapping[str, str]] = {
    "join_use_nulls": "1",
    "prefer_column_name_to_alias": "1",
    "default_table_engine": "MergeTree",  # keeps scratch tables on disk
    "create_table_empty_primary_key_by_default": "1",
    "mutations_sync": "1",  # a DELETE or UPDATE returns when it is complete
    "lightweight_deletes_sync": "2",
    "allow_experimental_correlated_subqueries": "1",
    "output_format_json_escape_forward_slashes": "0",  # JSON texts as Python writes them
}
_Rule = Callable[[Any, Any], str]  # (generator of SQL, node) -> the node as SQL


def translate(statement: str, database: str, types: Mapping[str, str] | None = None) -> str:
    """Return a statement in ClickHouse's dialect, with tables qualified by ``database``.

    ``types``: ClickHouse types of scalar parameters. A list parameter is read from the table ``given_NAME``.
    """
    from sqlglot import exp, parse_one

    tree = parse_one(statement, dialect="duckdb")
    own = {common.alias for common in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if table.name not in own and not table.db:
            table.set("db", exp.to_identifier(database))
    for select in tree.find_all(exp.Select):
        _name_columns(select)
    for parameter in tree.find_all(exp.Placeholder):
        name = parameter.name
        if isinstance(parameter.parent, exp.Explode):
            given = exp.table_(f"given_{name}", db=database)
            parameter.parent.parent.replace(exp.select("item").from_(given))
        else:
            parameter.set("kind", (types or {})[name])
            if parameter.args["kind"] == "String":
                parameter.replace(exp.Anonymous(this="toJSONString", expressions=[parameter.copy()]))
    return str(_generator()().generate(tree))


def _name_columns(select: Any) -> None:
    """Alias each column to its plain name: ClickHouse would call a column that two tables have ``table.name``."""
    from sqlglot import exp

    names = Counter(one.alias_or_name for one in select.expressions)
    for number, one in enumerate(select.expressions):
        if isinstance(one, exp.Null):
            one.replace(exp.alias_(exp.Null(), f"null_{number}"))
        elif isinstance(one, exp.Column) and one.table and not one.is_star and names[one.name] == 1:
            one.replace(exp.alias_(one.copy(), one.name))


@cache
def _generator() -> Any:
    """Return a factory of generators for ClickHouse's SQL, with our rules."""
    from sqlglot import exp
    from sqlglot.dialects.clickhouse import ClickHouse

    rules: dict[Any, _Rule] = {
        exp.ConcatWs: _concat_ws,
        exp.Contains: _contains,
        exp.SplitPart: _split_part,
        exp.TimeToUnix: _seconds,
        exp.TryCast: _try_cast,
        exp.Update: _update,
        exp.Alter: _rename,
        exp.Column: _column,
        exp.Anonymous: _function,
    }

    kind = type("Generator", (ClickHouse.Generator,), {"TRANSFORMS": {**ClickHouse.Generator.TRANSFORMS, **rules}})
    return lambda: kind(dialect="clickhouse")


def _concat_ws(of: Any, node: Any) -> str:
    """Join the values that are not NULL; ClickHouse's function returns NULL if one value is NULL."""
    separator, *values = map(of.sql, node.expressions)
    texts = ", ".join(f"CAST({value} AS Nullable(String))" for value in values)
    return f"arrayStringConcat(arrayMap(x -> assumeNotNull(x), arrayFilter(x -> isNotNull(x), [{texts}])), {separator})"


def _contains(of: Any, node: Any) -> str:
    return f"(position({of.sql(node, 'this')}, {of.sql(node, 'expression')}) > 0)"


def _split_part(of: Any, node: Any) -> str:
    text, delimiter, part = (of.sql(node, name) for name in ("this", "delimiter", "part_index"))
    return f"splitByString({delimiter}, assumeNotNull({text}))[{part}]"


def _seconds(of: Any, node: Any) -> str:
    """Return the seconds between two times; ClickHouse's ``-`` on times gives no number."""
    later, earlier = of.sql(node.this, "this"), of.sql(node.this, "expression")
    return f"dateDiff('second', {earlier}, {later})"


def _try_cast(of: Any, node: Any) -> str:
    text, to = of.sql(node, "this"), str(node.to)
    return {
        "BIGINT": f"toInt64OrNull({text})",
        "TIMESTAMPNTZ": f"parseDateTime64BestEffortOrNull({text}, 6, 'UTC')",
    }[to]


def _update(of: Any, node: Any) -> str:
    """Write UPDATE in its older form, for which a table needs no preparation."""
    changes = ", ".join(map(of.sql, node.expressions))
    return f"ALTER TABLE {of.sql(node, 'this')} UPDATE {changes}{of.sql(node, 'where')}"


def _rename(of: Any, node: Any) -> str:
    (action,) = node.args["actions"]
    return f"RENAME TABLE {of.sql(node, 'this')} TO {of.sql(action, 'this')}"


def _column(of: Any, node: Any) -> str:
    """Replace ``rowid``, which ClickHouse lacks, by the column ``place`` of ``kept``, less 1."""
    return "(place - 1)" if node.name == "rowid" else str(of.column_sql(node))


def _function(of: Any, node: Any) -> str:
    name = {"suffix": "endsWith", "prefix": "startsWith", "strlen": "length"}.get(node.name, node.name)
    return f"{name}({', '.join(map(of.sql, node.expressions))})"
