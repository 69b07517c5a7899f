"""Operators and their tokens."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct

from penstock.control import paging
from penstock.control.fields import Email, RoleName, Text, read
from penstock.control.guard import Guard, actor_of, forbidden, may_manage, operator_of
from penstock.control.names import check_email, check_role, invalid
from penstock.control.people import shapes
from penstock.control.people.changes import OperatorChanges
from penstock.control.people.shapes import Operator, Token
from penstock.domain import platform
from penstock.domain.access import Open, Permission, Role
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

LONGEST_LIFE_S = 365 * 24 * 3600
_DESCRIPTION_LENGTH = 256


class NewOperator(Struct, frozen=True):
    """An operator to make; a member where no role is given."""

    email: Email
    role: RoleName | None = None


class OperatorChange(Struct, frozen=True):
    """What becomes another: the role, the email, or both."""

    email: Email | None = None
    role: RoleName | None = None


class NewToken(Struct, frozen=True):
    """A token to make, and the seconds that it lasts: a year at most. The Heroku CLI sends them as text."""

    description: Annotated[Text, Meta(extra_json_schema={"maxLength": _DESCRIPTION_LENGTH})] | None = None
    expires_in: (
        Annotated[
            int | str, Meta(extra_json_schema={"minimum": 1, "maximum": LONGEST_LIFE_S, "pattern": "^[1-9][0-9]{0,6}$"})
        ]
        | None
    ) = None


class OperatorRoutes:
    """/operators. Whoever is named ``~`` is the caller."""

    def __init__(self, stores: Stores, changes: OperatorChanges) -> None:
        self._stores = stores
        self._changes = changes
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun. Everybody manages their own tokens, so that these routes decide by whose they are."""
        made = Doc("operator.create", "Make an operator", Operator, NewOperator, status=201, makes="operator")
        every = Doc("operator.list", "List the operators", list[Operator], ranges=("email",))
        one = Doc("operator.show", "Show an operator", Operator)
        change = Doc("operator.update", "Change an operator's role or email", Operator, OperatorChange)
        gone = Doc("operator.remove", "Remove an operator: their apps become yours", Operator, refusals=(422,))
        tokens = Doc("token.list", "List an operator's tokens, without their secrets", list[Token], refusals=(403,))
        mint = Doc("token.create", "Make a token", Token, NewToken, status=201, refusals=(403,), makes="token")
        revoke = Doc("token.revoke", "Revoke a token", Token, refusals=(403,))
        path = "/operators/{operator}"
        return [
            Route("GET", "/operators", self.list_all, Permission.OPERATORS_READ, doc=every),
            Route("POST", "/operators", self.create, Permission.OPERATORS_MANAGE, doc=made),
            Route("GET", path, self.show, Permission.OPERATORS_READ, doc=one),
            Route("PATCH", path, self.update, Permission.OPERATORS_MANAGE, doc=change),
            Route("DELETE", path, self.remove, Permission.OPERATORS_MANAGE, doc=gone),
            Route("GET", f"{path}/tokens", self.tokens, Open.OPERATOR, doc=tokens),
            Route("POST", f"{path}/tokens", self.mint, Open.OPERATOR, doc=mint),
            Route("DELETE", f"{path}/tokens/{{token}}", self.revoke, Open.OPERATOR, doc=revoke),
        ]

    def list_all(self, request: Request) -> Reply:
        """GET /operators."""
        self._guard.check(request)
        page = paging.page_of(request)
        return paging.reply(request, page, self._stores.operators.list(page=page), shapes.operator)

    def create(self, request: Request) -> Reply:
        """POST /operators."""
        self._guard.check(request)
        asked = read(request, NewOperator)
        email, role = check_email(asked.email, "email"), check_role(asked.role, *Role)
        made = self._changes.add(email, role=role or Role.MEMBER, by=actor_of(request))
        return Reply(201, shapes.operator(made))

    def show(self, request: Request) -> Reply:
        """GET /operators/OPERATOR."""
        return Reply(200, shapes.operator(self._target(request)))

    def update(self, request: Request) -> Reply:
        """PATCH /operators/OPERATOR: another role, another email."""
        target, asked = self._target(request), read(request, OperatorChange)
        email, wanted = asked.email, check_role(asked.role, *Role)
        if email is None and wanted is None:
            raise invalid("role or email is required.")
        email = None if email is None else check_email(email, "email")
        return Reply(
            200, shapes.operator(self._changes.update(target.id, email=email, role=wanted, by=actor_of(request)))
        )

    def remove(self, request: Request) -> Reply:
        """DELETE /operators/OPERATOR: their tokens end at once, their apps become the caller's."""
        return Reply(200, shapes.operator(self._changes.remove(self._target(request).id, by=actor_of(request))))

    def tokens(self, request: Request) -> Reply:
        """GET /operators/OPERATOR/tokens."""
        owner = self._managed(request)
        return Reply(200, [shapes.token(token, owner) for token in self._stores.operators.list_tokens(owner.id)])

    def mint(self, request: Request) -> Reply:
        """POST /operators/OPERATOR/tokens."""
        owner = self._managed(request)
        description, expires_at = token_terms(request, owner)
        made, secret = self._changes.mint(
            owner.id, description=description, expires_at=expires_at, by=actor_of(request)
        )
        return Reply(201, shapes.token(made, owner, secret=secret))

    def revoke(self, request: Request) -> Reply:
        """DELETE /operators/OPERATOR/tokens/TOKEN."""
        owner = self._managed(request)
        return Reply(
            200, shapes.token(self._changes.revoke(owner.id, request.params["token"], by=actor_of(request)), owner)
        )

    def _target(self, request: Request) -> platform.Operator:
        """The operator of the path, for a caller with the route's permission."""
        self._guard.check(request)
        return self._stores.operators.get(self._ref(request))

    def _managed(self, request: Request) -> platform.Operator:
        """The operator of the path, when it is the caller, or one whom the caller may manage."""
        caller, ref = operator_of(request), self._ref(request)
        if ref.lower() in (caller.id, caller.email.lower()):
            return caller
        self._guard.check(request, Permission.OPERATORS_MANAGE)
        target = self._stores.operators.get(ref)
        if not may_manage(caller, target.role):
            raise forbidden("Only an owner manages the tokens of owners and admins.")
        return target

    def _ref(self, request: Request) -> str:
        ref = request.params["operator"]
        return operator_of(request).id if ref == "~" else ref


def token_terms(request: Request, owner: platform.Operator) -> tuple[str, datetime | None]:
    """Description and end of a new token. One's own never outlives the token with which it is made: who steals one
    that expires cannot turn it into one that stays."""
    asked = read(request, NewToken)
    description, life_s = asked.description or "token", asked.expires_in
    if len(description) > _DESCRIPTION_LENGTH:
        raise invalid(f"description must be a string of at most {_DESCRIPTION_LENGTH} characters.")
    if isinstance(life_s, str):
        life_s = int(life_s) if re.fullmatch("[0-9]{1,8}", life_s) else 0
    if life_s is not None and not 1 <= life_s <= LONGEST_LIFE_S:
        raise invalid(f"expires_in must be a whole number of seconds from 1 to {LONGEST_LIFE_S}.")
    expires_at = None if life_s is None else datetime.now(UTC) + timedelta(seconds=life_s)
    if owner.id != operator_of(request).id or request.token is None:
        return description, expires_at
    ends = [at for at in (expires_at, request.token.expires_at) if at is not None]
    return description, min(ends, default=None)
