"""The objects that limits and budgets are set on, as requests name them and as answers show them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

from msgspec import Struct

from penstock.control.context import ControlContext
from penstock.control.fields import Reference, Text, named, only
from penstock.control.guard import Guard
from penstock.control.lifted import row_subject
from penstock.control.names import invalid
from penstock.control.present import Named
from penstock.control.trail import Subject
from penstock.domain import platform
from penstock.domain.access import Permission
from penstock.domain.catalogue import Catalogue
from penstock.domain.limits import Budget, LimitRow, Scope
from penstock.domain.platform import STANDARD_PLAN
from penstock.store.errors import NotFoundError
from penstock.store.metering import subjects
from penstock.store.nouns.stores import Stores
from penstock.web.api import Request

ScopeName = Literal["key", "attachment", "addon", "app", "model"]
# The query parameters that name a row of an app.
ON_APP = {
    "addon": "An add-on of the app, by name or id; without one of these three, the app itself",
    "attachment": "An attachment on the app, by name or id",
    "key": "A key of the app, by prefix or id",
    "model": "The row about this model alone; without it, the one about all models together",
}
OF_MODEL = {"model": "The model, by id or alias"}


class OnApp(Struct, frozen=True, kw_only=True):
    """What a row of an app is about: the app itself, or one of its add-ons, attachments or keys; all models together,
    or one ``model``."""

    addon: Reference | None = None
    attachment: Reference | None = None
    key: Text | None = None
    model: Text | None = None


class Object(Struct, frozen=True):
    """What a row is about. A key's name is its prefix, a model's its id."""

    type: ScopeName
    id: str
    name: str


class Place(NamedTuple):
    """Where a row stands: its object, the model it is about alone, empty for all, and the app, None for a model."""

    scope: Scope
    id: str
    name: str
    model: str = ""
    app: platform.App | None = None

    def subject(self, row_id: str) -> Subject:
        """For the audit log."""
        return row_subject(row_id, self.scope, self.name, self.model, self.app)


Names = Mapping[tuple[Scope, str], subjects.Subject]


class Places:
    """Finds the place of a row for a change, in the change's transaction and behind its locks."""

    def __init__(self, stores: Stores, context: ControlContext) -> None:
        self._stores = stores
        self._context = context
        self._guard = Guard(stores)

    @contextmanager
    def on_app(self, request: Request, wanted: OnApp, *, by: platform.Actor, removes: bool = False) -> Iterator[Place]:
        """Opens a change of what an app's path and ``wanted`` name; one that ``removes`` also finds what is about a
        model that has left the catalogue. Raises NotFoundError, and ApiError where it is not clear what is meant."""
        parts = {"addon": named(wanted.addon), "attachment": named(wanted.attachment), "key": wanted.key}
        given = {Scope(name): ref for name, ref in parts.items() if ref}
        if len(given) > 1:
            raise invalid(f"{' and '.join(given)} exclude each other; send one.")
        app = self._guard.app(request, request.params["app"], Permission.APP_READ)
        model = "" if wanted.model is None else self._model(wanted.model, removes=removes)
        with self._stores.db.write():
            self._guard.begin(by, Permission.LIMITS_MANAGE, app.id)
            for scope, ref in given.items():
                id_, name = _FINDERS[scope](self._stores, app, ref)
                yield Place(scope, id_, name, model, app)
            if not given:
                yield Place(Scope.APP, app.id, app.name, model, app)

    @contextmanager
    def of_model(self, name: str, *, by: platform.Actor, removes: bool = False) -> Iterator[Place]:
        """The same, of a model itself."""
        id_ = self._model(name, removes=removes)
        with self._stores.db.write():
            self._guard.begin(by, Permission.LIMITS_MANAGE)
            yield Place(Scope.MODEL, id_, id_)

    def _model(self, name: str, *, removes: bool) -> str:
        found = self._context.catalogue.find(name)
        if found is None and not removes:
            if name == STANDARD_PLAN:
                raise invalid(f"model: {name!r} is the server's own choice among the models; name one of them.")
            raise invalid(f"model: {name[:100]!r} is not a model; penstock ai:models:list lists them.")
        return name if found is None else found.id


def wanted_by(request: Request, more: Collection[str] = ()) -> OnApp:
    """What the query of a request names, which may have those other parameters too. Raises ApiError for one that is
    unknown or empty: what it was to name must not become the whole app."""
    only(request, (*ON_APP, *more))
    if empty := next((name for name in ON_APP if request.query.get(name) == ""), None):
        raise invalid(f"{empty} must not be empty.")
    return OnApp(**{name: request.query[name] for name in ON_APP if name in request.query})


def known_or_gone(catalogue: Catalogue, name: str) -> str:
    """The id behind a name; one that the catalogue does not have stays as it is."""
    found = catalogue.find(name)
    return name if found is None else found.id


def describe(stores: Stores, rows: Iterable[LimitRow | Budget]) -> Names:
    """The objects of some rows."""
    return stores.governance.describe([(row.scope, row.subject_id) for row in rows])


def shown(names: Names, row: LimitRow | Budget) -> tuple[Object, Named | None]:
    """The object of a row and the app that it belongs to."""
    found = names.get((row.scope, row.subject_id)) or subjects.Subject(name=row.subject_id)
    app = None if found.app_id is None else Named(found.app_id, found.app_name or "")
    return Object(row.scope.value, row.subject_id, found.name), app


def _addon(stores: Stores, app: platform.App, ref: str) -> tuple[str, str]:
    alias = stores.attachments.find(ref.upper(), app_id=app.id)
    found = stores.addons.find(ref) or (alias and stores.addons.find(alias.addon_id))
    if found is None or found.app_id != app.id:
        raise NotFoundError("addon")
    return found.id, found.name


def _attachment(stores: Stores, app: platform.App, ref: str) -> tuple[str, str]:
    found = stores.attachments.find(ref, app_id=app.id) or stores.attachments.get(ref.upper(), app_id=app.id)
    return found.id, found.name


def _key(stores: Stores, app: platform.App, ref: str) -> tuple[str, str]:
    found = [key for key in stores.keys.list_public(app_id=app.id) if ref in (key.id, key.prefix)]
    if len(found) > 1:
        raise invalid(f"key: {len(found)} keys begin with {ref[:40]}; name one by its id.")
    if not found:
        if stores.attachments.find(ref.upper(), app_id=app.id) is not None:
            raise invalid(f"key: {ref[:64]} is an attachment: name it as one, or one of its keys by prefix or id.")
        raise NotFoundError("key")
    return found[0].id, found[0].prefix


_FINDERS = {Scope.ADDON: _addon, Scope.ATTACHMENT: _attachment, Scope.KEY: _key}
