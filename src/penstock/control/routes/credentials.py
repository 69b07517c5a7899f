"""The credentials of upstreams: set, named and removed here, and never shown."""

import re
from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from penstock.control.fields import read
from penstock.control.guard import Guard, actor_of
from penstock.control.names import invalid
from penstock.control.present import moment
from penstock.control.trail import Subject, record
from penstock.domain.access import Permission
from penstock.domain.platform import StoredCredential
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What a header can carry.
_VALUE = {"pattern": "^[ -~]+$"}


class NewCredential(Struct, frozen=True):
    """The secret: printable ASCII."""

    value: Annotated[str, Meta(min_length=1, max_length=16_384, extra_json_schema=_VALUE)]


class Credential(Struct, frozen=True, kw_only=True):
    """A credential without its secret; ``fingerprint`` begins the SHA-256 of it."""

    name: str
    fingerprint: str
    updated_by: str
    created_at: datetime
    updated_at: datetime


class CredentialRoutes:
    """/credentials. Each change is one transaction with its audit event."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        every = Doc("credential.list", "List the upstreams' credentials, without their secrets", list[Credential])
        put = Doc("credential.update", "Set the credential of a provider", Credential, NewCredential)
        gone = Doc("credential.destroy", "Remove the credential of a provider", Credential)
        path, needed = "/credentials/{credential}", Permission.CREDENTIALS_MANAGE
        return [
            Route("GET", "/credentials", self.list_all, needed, doc=every),
            Route("PUT", path, self.put, needed, doc=put),
            Route("DELETE", path, self.remove, needed, doc=gone),
        ]

    def list_all(self, request: Request) -> Reply:
        """GET /credentials."""
        self._guard.check(request)
        return Reply(200, [_shown(one) for one in self._stores.credentials.list()])

    def put(self, request: Request) -> Reply:
        """PUT /credentials/NAME."""
        self._guard.check(request)
        name, value = request.params["credential"], read(request, NewCredential).value
        if not _NAME.fullmatch(name):
            raise invalid("A credential's name has 1 to 64 letters, digits, dots, dashes and underscores.")
        if not (value.isascii() and value.isprintable()):
            raise invalid("value must be printable ASCII, without line breaks.")
        stores, by = self._stores, actor_of(request)
        with stores.db.write():
            self._guard.begin(by, Permission.CREDENTIALS_MANAGE)
            before = stores.credentials.find(name)
            stores.credentials.put(name, value, by=by.email)
            made = _present(stores.credentials.find(name))
            action = "credential.create" if before is None else "credential.update"
            record(stores, by, action, subject=Subject(None, name), before=_told(before), after=_told(made))
        return Reply(200, _shown(made))

    def remove(self, request: Request) -> Reply:
        """DELETE /credentials/NAME."""
        self._guard.check(request)
        stores, by = self._stores, actor_of(request)
        with stores.db.write():
            self._guard.begin(by, Permission.CREDENTIALS_MANAGE)
            gone = _present(stores.credentials.find(request.params["credential"]))
            stores.credentials.remove(gone.name)
            record(stores, by, "credential.destroy", subject=Subject(None, gone.name), before=_told(gone))
        return Reply(200, _shown(gone))


def _present(found: StoredCredential | None) -> StoredCredential:
    if found is None:
        raise NotFoundError("credential")
    return found


def _told(credential: StoredCredential | None) -> dict[str, str] | None:
    return None if credential is None else {"fingerprint": credential.fingerprint}


def _shown(value: StoredCredential) -> Credential:
    return Credential(
        name=value.name,
        fingerprint=value.fingerprint,
        updated_by=value.updated_by,
        created_at=moment(value.created_at),
        updated_at=moment(value.updated_at),
    )
