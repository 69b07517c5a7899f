"""Who the operator is, signing in, and whether the plane is well."""

from penstock.control import present
from penstock.control.context import ControlContext
from penstock.control.guard import operator_of
from penstock.domain.access import Open
from penstock.domain.ids import secret_hash
from penstock.domain.platform import Operator
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError, Credentials, Doc, Reply, Request, Route, parse_credentials


class AccountRoutes:
    """/account, /oauth/authorizations and /healthz."""

    def __init__(self, stores: Stores, context: ControlContext) -> None:
        self._stores = stores
        self._context = context

    def routes(self) -> list[Route]:
        """The table of this noun."""
        you = Doc("account.show", "Show who you are", present.Account)
        same = Doc("account.show_user", "Show who you are, as Heroku's users API does", present.Account)
        listed = Doc("authorization.list", "List authorizations: always empty", list[present.Json])
        made = Doc("authorization.create", "Sign in with Basic credentials", present.Json, status=201, refusals=(401,))
        health = Doc("health.show", "Show whether the database answers", present.Json)
        return [
            Route("GET", "/account", self.show, Open.OPERATOR, doc=you),
            Route("GET", "/users/~", self.show, Open.OPERATOR, doc=same),
            Route("GET", "/oauth/authorizations", self.authorizations, Open.OPERATOR, doc=listed),
            Route("POST", "/oauth/authorizations", self.sign_in, Open.PUBLIC, doc=made),
            Route("GET", "/healthz", self.health, Open.PUBLIC, doc=health),
        ]

    def authenticate(self, credentials: Credentials) -> Operator | None:
        """The operator whose token it is. A Basic user must be that operator's email, or empty."""
        found = self._stores.operators.find_by_token(secret_hash(credentials.secret))
        operator = None if found is None else found[0]
        if operator is None or (credentials.user and credentials.user.lower() != operator.email.lower()):
            return None
        return operator

    def show(self, request: Request) -> Reply:
        """GET /account."""
        return Reply(200, present.account(operator_of(request)))

    def authorizations(self, request: Request) -> Reply:
        """GET /oauth/authorizations: no tokens, because only their hashes are kept."""
        return Reply(200, [])

    def sign_in(self, request: Request) -> Reply:
        """POST /oauth/authorizations, the CLI's ``login -i``: email and operator token as Basic credentials."""
        credentials = parse_credentials(request.headers.get("authorization"))
        operator = self.authenticate(credentials) if credentials and credentials.user else None
        if operator is None or credentials is None:
            raise ApiError(401, "unauthorized", "Invalid credentials provided: the password is an operator token.")
        token = {"id": operator.id, "token": credentials.secret, "expires_in": None}
        return Reply(
            201,
            {
                "id": operator.id,
                "description": "operator token",
                "scope": ["global"],
                "access_token": token,
                "user": {"id": operator.id, "email": operator.email, "full_name": None},
            },
        )

    def health(self, request: Request) -> Reply:
        """GET /healthz: 200 when the database answers, else 503."""
        self._stores.keys.revision()
        return Reply(200, {"status": "ok", "version": self._context.version})
