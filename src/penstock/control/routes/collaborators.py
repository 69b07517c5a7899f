"""Who shares an app."""

from msgspec import Struct

from penstock.control.fields import SharedRoleName, Text, read, required
from penstock.control.guard import Guard, actor_of, operator_of
from penstock.control.names import check_role, invalid
from penstock.control.people import shapes
from penstock.control.people.changes import OperatorChanges
from penstock.domain.access import Permission, Role
from penstock.domain.platform import App, Collaborator, Operator
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

_ROLES = (Role.ADMIN, Role.MEMBER, Role.VIEWER)


class UserRef(Struct, frozen=True):
    """An operator by id or email."""

    id: Text | None = None
    email: Text | None = None


class NewCollaborator(Struct, frozen=True):
    """Whom to share an app with, a member where no role is given. Nobody is written to, ``silent`` or not."""

    user: Text | UserRef
    role: SharedRoleName | None = None
    silent: bool | None = None


class CollaboratorChange(Struct, frozen=True):
    """A collaborator's role from now on."""

    role: SharedRoleName


class CollaboratorRoutes:
    """/apps/APP/collaborators."""

    def __init__(self, stores: Stores, changes: OperatorChanges) -> None:
        self._stores = stores
        self._changes = changes
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        shared = Doc("collaborator.list", "List who shares an app, its owner first", list[shapes.Collaborator])
        made = Doc(
            "collaborator.create",
            "Share an app with an operator",
            shapes.Collaborator,
            NewCollaborator,
            status=201,
            makes="collaborator",
        )
        change = Doc("collaborator.update", "Change a collaborator's role", shapes.Collaborator, CollaboratorChange)
        gone = Doc("collaborator.remove", "Stop sharing an app", shapes.Collaborator, refusals=(422,))
        one = "/apps/{app}/collaborators/{collaborator}"
        return [
            Route("GET", "/apps/{app}/collaborators", self.list_all, Permission.APP_READ, doc=shared),
            Route("POST", "/apps/{app}/collaborators", self.create, Permission.APP_SHARE, doc=made),
            Route("PATCH", one, self.update, Permission.APP_SHARE, doc=change),
            Route("DELETE", one, self.remove, Permission.APP_SHARE, doc=gone),
        ]

    def list_all(self, request: Request) -> Reply:
        """GET /apps/APP/collaborators: the owner first."""
        app = self._guard.app(request, request.params["app"])
        shared = self._stores.collaborators.list(app_id=app.id)
        return Reply(200, [shapes.owner_of(app), *(shapes.collaborator(one) for one in shared)])

    def create(self, request: Request) -> Reply:
        """POST /apps/APP/collaborators."""
        app, asked = self._guard.app(request, request.params["app"]), read(request, NewCollaborator)
        guest = self._operator(asked.user)
        wanted = check_role(asked.role, *_ROLES) or Role.MEMBER
        made = self._changes.share(app, guest.id, role=wanted, by=actor_of(request), new=True)
        return Reply(201, shapes.collaborator(made))

    def update(self, request: Request) -> Reply:
        """PATCH /apps/APP/collaborators/EMAIL: another role."""
        app = self._guard.app(request, request.params["app"])
        wanted = check_role(read(request, CollaboratorChange).role, *_ROLES) or Role.MEMBER
        held = self._held(app, request.params["collaborator"])
        made = self._changes.share(app, held.operator_id, role=wanted, by=actor_of(request), new=False)
        return Reply(200, shapes.collaborator(made))

    def remove(self, request: Request) -> Reply:
        """DELETE /apps/APP/collaborators/EMAIL; oneself without being asked."""
        app = self._guard.app(request, request.params["app"], Permission.APP_READ)
        held = self._find(app, request.params["collaborator"])
        if held is not None and held.operator_id == operator_of(request).id:
            self._guard.waive(request)
        else:
            self._guard.app(request, app.id)
            held = self._held(app, request.params["collaborator"])
        self._changes.unshare(held, app, by=actor_of(request))
        return Reply(200, shapes.collaborator(held))

    def _operator(self, user: str | UserRef) -> Operator:
        ref = required(user.id or user.email if isinstance(user, UserRef) else user, "user")
        found = self._stores.operators.find(ref)
        if found is None:
            hint = "An owner or admin makes one with: penstock operators:add EMAIL"
            raise invalid(f"user: no operator has the email or id {ref[:80]}. {hint}")
        return found

    def _find(self, app: App, ref: str) -> Collaborator | None:
        """By the collaborator's id, or the operator's id or email."""
        shared = self._stores.collaborators.list(app_id=app.id)
        return next((one for one in shared if ref.lower() in (one.id, one.operator_id, one.email.lower())), None)

    def _held(self, app: App, ref: str) -> Collaborator:
        held = self._find(app, ref)
        if held is None and ref.lower() in (app.owner_id, app.owner_email.lower()):
            raise invalid(f"{app.owner_email} is the owner of {app.name}: make another operator its owner first.")
        if held is None:
            raise NotFoundError("collaborator")
        return held
