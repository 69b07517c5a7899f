"""Operators and the hashes of their control plane tokens."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, exc, func, insert, or_, select, update

from penstock.domain.access import Role
from penstock.domain.ids import new_id
from penstock.domain.platform import Operator, OperatorToken
from penstock.store.database import Database
from penstock.store.errors import NameTakenError, NotFoundError
from penstock.store.paging import Page, cut
from penstock.store.schema import apps, collaborators, operator_tokens, operators

PREFIX_LENGTH = 12
# How stale a token's last use may be: one write per token and interval, not per request.
_USE_NOTED_EVERY = timedelta(minutes=1)


class OperatorStore:
    """Operators by token, id or email."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find_by_token(self, token_hash: bytes) -> tuple[Operator, OperatorToken] | None:
        """Whose token has that SHA-256, and the token; None when there is none or it has expired."""
        query = select(operators, operator_tokens.c.id.label("token_id")).join(
            operator_tokens, operator_tokens.c.operator_id == operators.c.id
        )
        with self._db.read() as connection:
            row = connection.execute(query.where(operator_tokens.c.hash == token_hash)).one_or_none()
            if row is None:
                return None
            token = connection.execute(select(operator_tokens).where(operator_tokens.c.id == row.token_id)).one()
        if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
            return None
        return _operator(row), _token(token)

    def find(self, ref: str) -> Operator | None:
        """The operator of that id or email, in any case of letters, or None."""
        known = or_(operators.c.id == ref, func.lower(operators.c.email) == ref.lower())
        query = select(operators).where(known)
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _operator(row)

    def ids_by_email(self, emails: Collection[str]) -> dict[str, str]:
        """The ids of those of the emails, as they are written, that belong to an operator."""
        query = select(operators.c.email, operators.c.id).where(operators.c.email.in_(emails))
        with self._db.read() as connection:
            return {row.email: row.id for row in connection.execute(query)}

    def get(self, ref: str) -> Operator:
        """The operator of that id or email. Raises NotFoundError."""
        found = self.find(ref)
        if found is None:
            raise NotFoundError("operator")
        return found

    def list(self, *, page: Page | None = None) -> tuple[Operator, ...]:
        """The operators of one page by email, or all."""
        query = cut(select(operators), page, {"email": operators.c.email})
        with self._db.read() as connection:
            return tuple(_operator(row) for row in connection.execute(query))

    def hold(self, operator_id: str, token_id: str | None) -> Operator | None:
        """The operator as they are now, who stays so, as does their token, until the transaction ends; None when either
        is gone."""
        who = select(operators).where(operators.c.id == operator_id).with_for_update(read=True)
        token = select(operator_tokens.c.id).where(operator_tokens.c.id == token_id)
        token = token.with_for_update(read=True, key_share=True)
        with self._db.write() as connection:
            row = connection.execute(who).one_or_none()
            signed_in = token_id is None or connection.execute(token).one_or_none() is not None
        return _operator(row) if row is not None and signed_in else None

    def lock(self, *ids: str | None) -> dict[str, Operator]:
        """Those operators and every owner, by id, as they are now and stay until the transaction ends: what depends on
        a role, or on how many owners there are, is decided on these."""
        wanted = or_(operators.c.role == Role.OWNER.value, operators.c.id.in_([one for one in ids if one is not None]))
        with self._db.write() as connection:
            rows = connection.execute(select(operators).where(wanted).order_by(operators.c.id).with_for_update())
            return {row.id: _operator(row) for row in rows}

    def add(self, email: str, *, role: Role) -> Operator:
        """A new operator. Raises NameTakenError."""
        operator = Operator(id=new_id(), email=email, role=role, created_at=datetime.now(UTC))
        with self._db.write() as connection:
            if self.find(email) is not None:
                raise NameTakenError("operator", email)
            try:
                connection.execute(
                    insert(operators).values(
                        id=operator.id, email=email, role=role.value, created_at=operator.created_at
                    )
                )
            except exc.IntegrityError as error:
                raise NameTakenError("operator", email) from error
        return operator

    def update(self, operator_id: str, *, email: str | None = None, role: Role | None = None) -> None:
        """Changes the email, also on the apps that they own, or the role. Raises NotFoundError, NameTakenError."""
        values = {"email": email, "role": None if role is None else role.value}
        with self._db.write() as connection:
            other = None if email is None else self.find(email)
            if other is not None and other.id != operator_id:
                raise NameTakenError("operator", str(email))
            changed = connection.execute(
                update(operators)
                .where(operators.c.id == operator_id)
                .values(**{name: value for name, value in values.items() if value is not None})
            )
            if changed.rowcount == 0:
                raise NotFoundError("operator")
            if email is not None:
                connection.execute(update(apps).where(apps.c.owner_id == operator_id).values(owner_email=email))

    def remove(self, operator_id: str, *, heir: Operator) -> None:
        """Removes the operator with all tokens; their apps pass to ``heir``. Raises NotFoundError."""
        with self._db.write() as connection:
            owned = update(apps).where(apps.c.owner_id == operator_id)
            inherited = select(apps.c.id).where(apps.c.owner_id == operator_id)
            shared = collaborators.c.app_id.in_(inherited), collaborators.c.operator_id == heir.id
            connection.execute(delete(collaborators).where(*shared))
            connection.execute(owned.values(owner_id=heir.id, owner_email=heir.email))
            connection.execute(delete(operator_tokens).where(operator_tokens.c.operator_id == operator_id))
            connection.execute(delete(collaborators).where(collaborators.c.operator_id == operator_id))
            if connection.execute(delete(operators).where(operators.c.id == operator_id)).rowcount == 0:
                raise NotFoundError("operator")

    def add_token(
        self, operator_id: str, secret_hash: bytes, *, prefix: str, description: str, expires_at: datetime | None = None
    ) -> OperatorToken:
        """One more token of an operator; ``prefix`` is the first characters of the secret, for lists."""
        token = OperatorToken(
            id=new_id(),
            operator_id=operator_id,
            prefix=prefix[:PREFIX_LENGTH],
            description=description,
            created_at=datetime.now(UTC),
            expires_at=expires_at,
        )
        with self._db.write() as connection:
            connection.execute(
                insert(operator_tokens).values(
                    id=token.id,
                    operator_id=operator_id,
                    hash=secret_hash,
                    prefix=token.prefix,
                    description=description,
                    expires_at=expires_at,
                    created_at=token.created_at,
                )
            )
        return token

    def list_tokens(self, operator_id: str) -> tuple[OperatorToken, ...]:
        """The tokens of an operator, oldest first; expired ones too."""
        query = select(operator_tokens).where(operator_tokens.c.operator_id == operator_id)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(operator_tokens.c.created_at, operator_tokens.c.id))
            return tuple(_token(row) for row in rows)

    def find_token(self, token_id: str) -> OperatorToken | None:
        """The token of that id, or None."""
        with self._db.read() as connection:
            row = connection.execute(select(operator_tokens).where(operator_tokens.c.id == token_id)).one_or_none()
        return None if row is None else _token(row)

    def remove_token(self, token_id: str) -> None:
        """Revokes one token. Raises NotFoundError."""
        with self._db.write() as connection:
            if connection.execute(delete(operator_tokens).where(operator_tokens.c.id == token_id)).rowcount == 0:
                raise NotFoundError("token")

    def note_use(self, token: OperatorToken) -> None:
        """Keeps the time of the last use, to the minute."""
        now = datetime.now(UTC)
        if token.last_used_at is not None and now - token.last_used_at < _USE_NOTED_EVERY:
            return
        with self._db.write() as connection:
            connection.execute(update(operator_tokens).where(operator_tokens.c.id == token.id).values(last_used_at=now))


def _operator(row: Row[Any]) -> Operator:
    return Operator(id=row.id, email=row.email, role=Role(row.role), created_at=row.created_at)


def _token(row: Row[Any]) -> OperatorToken:
    return OperatorToken(
        id=row.id,
        operator_id=row.operator_id,
        prefix=row.prefix,
        description=row.description,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )
