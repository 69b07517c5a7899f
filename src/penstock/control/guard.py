"""What the caller of a request may touch: every handler gets its apps, add-ons and attachments here, or not at all."""

from datetime import UTC, datetime

from penstock.domain.access import PRIVILEGED, Open, Permission, Role, permissions
from penstock.domain.platform import Actor, AddOn, App, Attachment, Operator
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError, Request


def operator_of(request: Request) -> Operator:
    """The operator of a route that is not public."""
    if request.operator is None:
        raise RuntimeError(f"{request.path} is a public route")
    return request.operator


def actor_of(request: Request) -> Actor:
    """On whose word a change of this request is made."""
    operator = operator_of(request)
    return Actor(
        id=operator.id,
        email=operator.email,
        source=request.source,
        request_id=request.request_id,
        token_id=None if request.token is None else request.token.id,
    )


def forbidden(message: str) -> ApiError:
    """A 403 in Heroku's shape."""
    return ApiError(403, "forbidden", message)


class Guard:
    """Finds objects for a request and refuses those that its operator may not touch.

    What they may not even see does not exist for them: NotFoundError. What they see but may not do: ApiError 403.
    ``permission`` is the route's own unless another is named.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def app(self, request: Request, ref: str, permission: Permission | None = None) -> App:
        """The app of that id or name."""
        app = self._stores.apps.find(ref)
        held = self._held(request, app)
        if app is None or Permission.APP_READ not in held:
            raise NotFoundError("app")
        return self._allowed(request, app, held, permission)

    def addon(self, request: Request, ref: str, permission: Permission | None = None) -> AddOn:
        """The add-on of that id or name. To read it, an app that it is attached to will do; else its own app counts."""
        addon = self._stores.addons.find(ref)
        app = None if addon is None else self._stores.apps.find(addon.app_id)
        if addon is None or app is None:
            raise NotFoundError("addon")
        held = self._held(request, app)
        if Permission.APP_READ not in held and not self._reads_attached(request, addon):
            raise NotFoundError("addon")
        self._allowed(request, app, held | {Permission.APP_READ}, permission)
        return addon

    def attachment(
        self, request: Request, ref: str, *, app: App | None = None, permission: Permission | None = None
    ) -> Attachment:
        """The attachment of that id, or of that name on ``app``. What the caller holds on the app that it is on counts,
        and what they hold on the app that owns the add-on, whose spend it is."""
        attachment = self._stores.attachments.get(ref, app_id=None if app is None else app.id)
        on = self._stores.apps.find(attachment.app_id)
        held = self._held(request, on) | self._held(request, self._stores.apps.find(attachment.owner_app_id))
        if on is None or Permission.APP_READ not in held:
            raise NotFoundError("attachment")
        self._allowed(request, on, held, permission)
        return attachment

    def visible_to(self, request: Request, all_of: Permission = Permission.APP_READ) -> str | None:
        """For lists: None when the operator has ``all_of`` over every app, else the id by which the stores filter."""
        request.checked.add(Permission.APP_READ)
        operator = operator_of(request)
        return None if all_of in permissions(operator.role) else operator.id

    def visible_of(self, request: Request, addon: AddOn) -> str | None:
        """The same for the attachments of an add-on: who reads the app that owns it sees them all."""
        owner = self._stores.apps.find(addon.app_id)
        return None if Permission.APP_READ in self._held(request, owner) else self.visible_to(request)

    def begin(self, by: Actor, permission: Permission, *app_ids: str, one_is_enough: bool = False) -> None:
        """Opens a change of these apps, or with none of the installation, inside its transaction. Changes of one app
        wait for each other here, so the caller's rights are asked once more: who waited may have lost them."""
        stores, now = self._stores, datetime.now(UTC)
        operator = None if by.id is None else stores.operators.hold(by.id, by.token_id)
        for app_id in sorted({*app_ids}):
            stores.apps.update(app_id, updated_at=now)
        if by.id is None:
            return
        if operator is None:
            raise ApiError(401, "unauthorized", "Invalid credentials provided: they have been revoked.")
        apps = [stores.apps.get(app_id) for app_id in app_ids]
        held = [permissions(operator.role, self.role_on(operator, app)) for app in apps] or [permissions(operator.role)]
        if not (any if one_is_enough else all)(permission in each for each in held):
            if apps and all(Permission.APP_READ not in each for each in held):
                raise NotFoundError("app")
            raise forbidden(f"You do not have the permission {permission} any more.")

    def check(self, request: Request, permission: Permission | None = None) -> None:
        """The permission over the installation, whatever the app."""
        needed = permission or _needed(request)
        request.checked.add(needed)
        role = operator_of(request).role
        if needed not in permissions(role):
            raise forbidden(f"This needs the permission {needed}, which the role {role} does not have.")

    def waive(self, request: Request) -> None:
        """Notes that the route's permission is not needed: the caller acts on what is their own."""
        request.checked.add(_needed(request))

    def role_on(self, operator: Operator, app: App) -> Role | None:
        """The operator's role on an app: its owner's, a collaborator's, or none."""
        if app.owner_id == operator.id:
            return Role.OWNER
        collaborator = self._stores.collaborators.find(app.id, operator.id)
        return None if collaborator is None else collaborator.role

    def _held(self, request: Request, app: App | None) -> frozenset[Permission]:
        operator = operator_of(request)
        return permissions(operator.role, None if app is None else self.role_on(operator, app))

    def _allowed(self, request: Request, app: App, held: frozenset[Permission], permission: Permission | None) -> App:
        needed = permission or _needed(request)
        request.checked.add(needed)
        if needed not in held:
            message = f"You do not have access to do this to the app {app.name}: it needs the permission {needed}."
            raise forbidden(f"{message} Ask its owner, {app.owner_email}.")
        return app

    def _reads_attached(self, request: Request, addon: AddOn) -> bool:
        attached = self._stores.attachments.list(addon_id=addon.id)
        apps = (self._stores.apps.find(attachment.app_id) for attachment in attached)
        return any(Permission.APP_READ in self._held(request, app) for app in apps if app is not None)


def may_manage(operator: Operator, *roles: Role) -> bool:
    """Whether the operator may make, change or remove one who has or gets these roles."""
    held = permissions(operator.role)
    needed = Permission.OWNERS_MANAGE if PRIVILEGED & {*roles} else Permission.OPERATORS_MANAGE
    return needed in held


def _needed(request: Request) -> Permission:
    if isinstance(request.access, Open):
        raise RuntimeError(f"{request.path} names no permission")
    return request.access
