"""Who the operator is, their own tokens in Heroku's forms, and whether the plane is well."""

from penstock.control import present
from penstock.control.context import ControlContext
from penstock.control.guard import actor_of, operator_of
from penstock.control.people import shapes
from penstock.control.people.changes import OperatorChanges
from penstock.control.people.shapes import Authorization
from penstock.control.routes.operators import NewToken, token_terms
from penstock.domain.access import Open
from penstock.domain.platform import OperatorToken
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError, Doc, Reply, Request, Route


class AccountRoutes:
    """/account, /oauth and /healthz."""

    def __init__(self, stores: Stores, context: ControlContext, changes: OperatorChanges) -> None:
        self._stores = stores
        self._context = context
        self._changes = changes

    def routes(self) -> list[Route]:
        """The table of this noun."""
        you = Doc("account.show", "Show who you are", present.Account)
        same = Doc("account.show_user", "Show who you are, as Heroku's users API does", present.Account)
        listed = Doc("authorization.list", "List your tokens, without their secrets", list[Authorization])
        made = Doc(
            "authorization.create",
            "Make a token; with Basic credentials that is a sign-in",
            Authorization,
            NewToken,
            status=201,
            makes="authorization",
        )
        one = Doc("authorization.show", "Show one of your tokens, without its secret", Authorization)
        revoked = Doc("authorization.revoke", "Revoke one of your tokens", Authorization)
        ended = Doc("session.end", "End the token in use, if it is one that expires", shapes.Session, refusals=(404,))
        health = Doc("health.show", "Show whether the database answers", present.Json)
        own = "/oauth/authorizations/{authorization}"
        return [
            Route("GET", "/account", self.show, Open.OPERATOR, doc=you),
            Route("GET", "/users/~", self.show, Open.OPERATOR, doc=same),
            Route("GET", "/oauth/authorizations", self.authorizations, Open.OPERATOR, doc=listed),
            Route("POST", "/oauth/authorizations", self.authorize, Open.OPERATOR, doc=made),
            Route("GET", own, self.authorization, Open.OPERATOR, doc=one),
            Route("DELETE", own, self.revoke, Open.OPERATOR, doc=revoked),
            Route("DELETE", "/oauth/sessions/~", self.sign_out, Open.OPERATOR, doc=ended),
            Route("GET", "/healthz", self.health, Open.PUBLIC, doc=health),
        ]

    def show(self, request: Request) -> Reply:
        """GET /account."""
        return Reply(200, present.account(operator_of(request)))

    def authorizations(self, request: Request) -> Reply:
        """GET /oauth/authorizations: the caller's tokens, without the secrets, of which only hashes are kept."""
        owner = operator_of(request)
        return Reply(
            200, [shapes.authorization(token, owner) for token in self._stores.operators.list_tokens(owner.id)]
        )

    def authorize(self, request: Request) -> Reply:
        """POST /oauth/authorizations: a new token of the caller's. The CLI's ``login -i`` sends email and token as
        Basic credentials, which makes it a sign-in."""
        owner = operator_of(request)
        description, expires_at = token_terms(request, owner)
        made, secret = self._changes.mint(
            owner.id,
            description=description,
            expires_at=expires_at,
            by=actor_of(request),
            sign_in=request.headers["authorization"].lower().startswith("basic"),
        )
        return Reply(201, shapes.authorization(made, owner, secret=secret))

    def authorization(self, request: Request) -> Reply:
        """GET /oauth/authorizations/ID."""
        return Reply(200, shapes.authorization(self._own(request), operator_of(request)))

    def revoke(self, request: Request) -> Reply:
        """DELETE /oauth/authorizations/ID."""
        owner = operator_of(request)
        gone = self._changes.revoke(owner.id, self._own(request).id, by=actor_of(request))
        return Reply(200, shapes.authorization(gone, owner))

    def sign_out(self, request: Request) -> Reply:
        """DELETE /oauth/sessions/~ ends the token in use, if it is one that expires: those come from signing in. One
        that was made to stay is not ended by a CLI that logs out, as Heroku keeps one's API key."""
        owner, token = operator_of(request), request.token
        if token is None or token.expires_at is None:
            raise ApiError(404, "not_found", "Couldn't find that session.", resource="session")
        gone = self._changes.revoke(owner.id, token.id, by=actor_of(request))
        return Reply(200, shapes.Session(id=gone.id, description=gone.description))

    def health(self, request: Request) -> Reply:
        """GET /healthz: 200 when the database answers, else 503."""
        self._stores.keys.revision()
        return Reply(200, {"status": "ok", "version": self._context.version})

    def _own(self, request: Request) -> OperatorToken:
        found = self._stores.operators.find_token(request.params["authorization"])
        if found is None or found.operator_id != operator_of(request).id:
            raise NotFoundError("token")
        return found
