"""Signing in: whose token it is, with guesses slowed, and what is kept about it."""

import logging
from concurrent.futures import ThreadPoolExecutor

from penstock.control.context import ControlContext
from penstock.control.names import is_email
from penstock.control.people.slowdown import FREE_FAILURES, WINDOW_S, Attempt, Slowdown
from penstock.control.trail import Subject, record
from penstock.domain.ids import secret_hash
from penstock.domain.platform import Actor, OperatorToken
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError, Caller, Credentials, SignedIn

logger = logging.getLogger(__name__)

NOBODY = "(not signed in)"


class SignIn:
    """Finds the operator of a request's credentials. Called from many threads."""

    def __init__(self, stores: Stores, context: ControlContext) -> None:
        self._stores = stores
        self._slowdown = Slowdown(context.clock)
        # Not in the request: a read must not wait for the database's writers.
        self._notes = ThreadPoolExecutor(1, thread_name_prefix="token-use")
        self._noting: set[str] = set()

    def __call__(self, credentials: Credentials, caller: Caller) -> SignedIn | None:
        """Who it is; None when the credentials are wrong. A Basic user must be the token's operator, or empty.

        Raises ApiError rate_limit where too many have failed before: from this source, without a look at the
        credentials; for this account, when they are wrong."""
        user = (credentials.user or "").lower()
        account = secret_hash(user) if user else None
        attempt = Attempt(caller.source, account, secret_hash(credentials.secret))
        if wait_s := self._slowdown.wait_s(attempt):
            raise _slowed("from this address", wait_s)
        found = self._stores.operators.find_by_token(attempt.proof)
        if found is None or (user and user != found[0].email.lower()):
            failed = self._slowdown.failed(attempt, right=found is not None)
            for what in failed.started:
                self._tell(what, user, caller)
            if failed.wait_s:
                raise _slowed("for this account", failed.wait_s)
            return None
        self._slowdown.succeeded(attempt)
        self._note_use(found[1])
        return SignedIn(*found)

    def _note_use(self, token: OperatorToken) -> None:
        def note() -> None:
            try:
                self._stores.operators.note_use(token)
            finally:
                self._noting.discard(token.id)

        if token.id not in self._noting:
            self._noting.add(token.id)
            self._notes.submit(note)

    def _tell(self, what: str, user: str, caller: Caller) -> None:
        # The user is what somebody typed, maybe the token itself: it is named only where it is an operator's.
        account = "unknown"
        try:
            if is_email(user) and (operator := self._stores.operators.find(user)):
                account = operator.email
        finally:  # the log has it even where the database does not answer
            name = f"source {caller.source}" if what == "source" else f"account {account}"
            logger.warning("%d failed sign-ins: the %s is slowed (request %s)", FREE_FAILURES, name, caller.request_id)
        by = Actor(id=None, email=NOBODY, source=caller.source, request_id=caller.request_id)
        after = {"account": account, "failures": FREE_FAILURES, "within_s": int(WINDOW_S)}
        record(self._stores, by, "sign_in.slow", subject=Subject(None, name), after=after)


def _slowed(what: str, wait_s: int) -> ApiError:
    message = f"Too many failed sign-ins {what}. Try again in {wait_s} s."
    return ApiError(429, "rate_limit", message, headers={"Retry-After": str(wait_s)})
