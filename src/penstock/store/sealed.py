"""The columns that hold sealed secrets, and what each value is bound to."""

from typing import NamedTuple

from sqlalchemy import Connection, LargeBinary, Table, func, select

from penstock.store.schema import metadata

TABLES = tuple(table for table in metadata.sorted_tables if "sealed" in table.c)


class SealedValue(NamedTuple):
    """One sealed value with the primary key of its row, to which it is bound."""

    key: tuple[str, ...]
    sealed: bytes

    @property
    def bound_to(self) -> str:
        """The associated data of the seal."""
        return "/".join(self.key)


def list_sealed(
    connection: Connection, table: Table, *, not_under: bytes = b"", limit: int | None = None
) -> list[SealedValue]:
    """Sealed values of a table, those that begin with ``not_under`` left out."""
    query = select(*table.primary_key, table.c.sealed).where(table.c.sealed != b"").limit(limit)
    if not_under:
        query = query.where(func.substr(table.c.sealed, 1, len(not_under), type_=LargeBinary) != not_under)
    return [SealedValue(tuple(row[:-1]), row[-1]) for row in connection.execute(query)]
