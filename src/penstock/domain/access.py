"""Who may do what: the roles and the permissions each one carries. Whatever is not listed is denied."""

from enum import StrEnum


class Role(StrEnum):
    """An operator's role over the whole installation, or a collaborator's on one app.

    Over the installation: an ``owner`` may do everything; an ``admin`` everything but what touches owners, admins and
    the master key; a ``member`` makes apps and reaches those that are theirs or shared with them; a ``viewer`` reads
    everything but secrets and the audit log. On an app: ``admin``, ``member`` and ``viewer``; whoever owns the app is
    its ``owner``.
    """

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class Permission(StrEnum):
    """What a route needs. Those that start with ``app:`` are asked of one app, the others of the installation."""

    APP_READ = "app:read"
    APP_SECRETS = "app:secrets"
    APP_CHANGE = "app:change"
    APP_SHARE = "app:share"
    APP_DESTROY = "app:destroy"
    APP_AUDIT = "app:audit"
    APPS_CREATE = "apps:create"
    AUDIT_READ = "audit:read"
    CREDENTIALS_MANAGE = "credentials:manage"
    LIMITS_MANAGE = "limits:manage"
    OPERATORS_READ = "operators:read"
    OPERATORS_MANAGE = "operators:manage"
    OWNERS_MANAGE = "owners:manage"
    USAGE_READ = "usage:read"


_READS = frozenset({Permission.APP_READ})
_CHANGES = _READS | {Permission.APP_SECRETS, Permission.APP_CHANGE}
_ADMINISTERS = _CHANGES | {Permission.APP_SHARE, Permission.APP_AUDIT}
_OWNS = _ADMINISTERS | {Permission.APP_DESTROY}

ON_APP: dict[Role, frozenset[Permission]] = {
    Role.OWNER: _OWNS,
    Role.ADMIN: _ADMINISTERS,
    Role.MEMBER: _CHANGES,
    Role.VIEWER: _READS,
}

EVERYWHERE: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.ADMIN: frozenset(Permission) - {Permission.OWNERS_MANAGE},
    Role.MEMBER: frozenset({Permission.APPS_CREATE}),
    Role.VIEWER: frozenset({Permission.APP_READ, Permission.OPERATORS_READ, Permission.USAGE_READ}),
}


class Open(StrEnum):
    """Who may call a route that needs no permission: anybody at all, or any operator, for what is their own."""

    PUBLIC = "public"
    OPERATOR = "operator"


Access = Permission | Open

# Whom an operator needs owners:manage to make, change or remove.
PRIVILEGED = frozenset({Role.OWNER, Role.ADMIN})


def permissions(everywhere: Role, on_app: Role | None = None) -> frozenset[Permission]:
    """All that a role over the installation and, where there is one, a role on the app allow together."""
    return EVERYWHERE[everywhere] | (ON_APP[on_app] if on_app is not None else frozenset())
