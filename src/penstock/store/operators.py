"""Operators and the hashes of their control plane tokens."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, insert, select, update

from penstock.domain.ids import new_id
from penstock.domain.platform import Operator
from penstock.store.database import Database
from penstock.store.schema import operator_tokens, operators


class OperatorStore:
    """Operators by token or email."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, *, token_hash: bytes) -> Operator | None:
        """Whose token has that SHA-256, or None."""
        query = select(operators).join(operator_tokens, operator_tokens.c.operator_id == operators.c.id)
        with self._db.read() as connection:
            row = connection.execute(query.where(operator_tokens.c.hash == token_hash)).one_or_none()
        return None if row is None else _operator(row)

    def list(self) -> tuple[Operator, ...]:
        """All operators by email."""
        with self._db.read() as connection:
            return tuple(_operator(row) for row in connection.execute(select(operators).order_by(operators.c.email)))

    def add(self, email: str, *, token_hash: bytes) -> Operator:
        """A token for the operator of that email, who is created when new."""
        now = datetime.now(UTC)
        with self._db.write() as connection:
            row = connection.execute(select(operators).where(operators.c.email == email)).one_or_none()
            operator = Operator(id=new_id(), email=email) if row is None else _operator(row)
            if row is None:
                connection.execute(insert(operators).values(id=operator.id, email=email, created_at=now))
            connection.execute(
                insert(operator_tokens).values(id=new_id(), operator_id=operator.id, hash=token_hash, created_at=now)
            )
        return operator

    def update(self, operator_id: str, *, email: str) -> None:
        """Changes the email."""
        with self._db.write() as connection:
            connection.execute(update(operators).where(operators.c.id == operator_id).values(email=email))


def _operator(row: Row[Any]) -> Operator:
    return Operator(id=row.id, email=row.email)
