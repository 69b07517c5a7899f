"""The policy of an app: its weight and reserve in queues, its cache, whether its prompts are kept.

What an app does to others (weight, reserve) needs limits:manage; what concerns the app alone (cache, kept prompts) is
for those who may change it, who read its secrets as well.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from penstock.control.fields import read
from penstock.control.guard import Guard, actor_of
from penstock.control.names import invalid
from penstock.control.present import Named
from penstock.control.trail import Subject, record
from penstock.domain import limits
from penstock.domain.access import Permission
from penstock.store.nouns.stores import Stores
from penstock.web.api import Doc, Reply, Request, Route

_LONGEST_CACHE_S = 365 * 86_400
_MOST_DAYS = 3650


class PolicyChange(Struct, frozen=True, kw_only=True):
    """What changes: a field that is left out stays as it is; null turns the cache, or keeping, off. ``weight`` and
    ``reserve_percent`` need the permission limits:manage."""

    weight: Annotated[int, Meta(ge=1, le=100)] | UnsetType = UNSET
    reserve_percent: Annotated[int, Meta(ge=0, le=100)] | UnsetType = UNSET
    cache_ttl_s: Annotated[int, Meta(ge=1, le=_LONGEST_CACHE_S)] | UnsetType | None = UNSET
    content_days: Annotated[int, Meta(ge=1, le=_MOST_DAYS)] | UnsetType | None = UNSET


class Policy(Struct, frozen=True, kw_only=True):
    """How an app is treated: ``weight`` (1 to 100) and the reserved share of slots in queues, for how many seconds its
    answers are cached, and for how many days its prompts and answers are kept (null: not at all)."""

    app: Named
    weight: int
    reserve_percent: int
    cache_ttl_s: int | None
    content_days: int | None


class PolicyRoutes:
    """/apps/APP/policy."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._guard = Guard(stores)

    def routes(self) -> list[Route]:
        """The table of this noun."""
        shown = Doc(
            "policy.show",
            "Show how an app is treated in queues, whether its answers are cached, and what is kept",
            Policy,
        )
        change = Doc("policy.update", "Change it; weight and reserve_percent need limits:manage", Policy, PolicyChange)
        return [
            Route("GET", "/apps/{app}/policy", self.show, Permission.APP_READ, doc=shown),
            Route("PUT", "/apps/{app}/policy", self.change, Permission.APP_CHANGE, doc=change),
        ]

    def show(self, request: Request) -> Reply:
        """GET /apps/APP/policy."""
        app = self._guard.app(request, request.params["app"])
        return Reply(200, _shown(Named(app.id, app.name), self._stores.policies.find(app.id)))

    def change(self, request: Request) -> Reply:
        """PUT /apps/APP/policy. Keeping for fewer days, or no more, also concerns what is kept already."""
        self._guard.app(request, request.params["app"], Permission.APP_READ)
        fields = _given(read(request, PolicyChange))
        manages = bool(fields.keys() & {"weight", "reserve_percent"})
        if manages:
            # First, so that nobody is sent for a permission that is not enough.
            self._guard.check(request, Permission.LIMITS_MANAGE)
        app = self._guard.app(request, request.params["app"])
        if not fields:
            raise invalid(f"Name at least one of {', '.join(PolicyChange.__struct_fields__)}.")
        stores, by = self._stores, actor_of(request)
        with stores.db.write():
            self._guard.begin(by, Permission.APP_CHANGE, app.id)
            if manages:
                self._guard.begin(by, Permission.LIMITS_MANAGE)
            before = stores.policies.find(app.id, held=True)
            after = msgspec.structs.replace(before, **fields)
            if after != before:
                if after.content_days is not None:
                    stores.contents.make_key()
                stores.policies.put(app.id, after)
                if after.content_days != before.content_days:
                    stores.contents.shorten(app.id, after.content_days)
                subject = Subject(app.id, app.name, app)
                record(stores, by, "policy.update", subject=subject, before=_told(before), after=_told(after))
        return Reply(200, _shown(Named(app.id, app.name), after))


def _given(change: PolicyChange) -> dict[str, int | None]:
    return {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}


def _told(policy: limits.Policy) -> dict[str, Any]:
    return msgspec.structs.asdict(policy)


def _shown(app: Named, policy: limits.Policy) -> Policy:
    return Policy(app=app, **msgspec.structs.asdict(policy))
