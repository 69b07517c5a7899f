"""A pure model beside the real plane: whatever order of changes, config vars, attachments and keys agree with it."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from tests.control.plane import GATEWAY, Plane, running_plane
from tests.control.test_races import count_orphans, rows

PLANS = {"standard": None, "chat-large": "chat-large"}
ALIASES = st.sampled_from(["CHAT", "OTHER", "INFERENCE"])


@dataclass
class Attached:
    """An attachment: which add-on, under which name, where."""

    addon: str
    app: str
    alias: str


@dataclass
class Model:
    """What there should be. Apps by a number that stays when they are renamed; the rest by id."""

    names: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    plans: dict[str, str | None] = field(default_factory=dict)
    attached: dict[str, Attached] = field(default_factory=dict)
    vars: dict[str, dict[str, str]] = field(default_factory=dict)

    def aliases(self, app: str) -> set[str]:
        """The names that are in use on an app."""
        return {one.alias for one in self.attached.values() if one.app == app}

    def claimed(self, app: str) -> set[str]:
        """The config vars that attachments bring to an app."""
        return {name for one in self.attached.values() if one.app == app for name in self.brings(one)}

    def brings(self, one: Attached) -> list[str]:
        """The config vars of one attachment."""
        model = ["_MODEL_ID"] if self.plans[one.addon] else []
        return [one.alias + suffix for suffix in ["_URL", "_KEY", *model]]

    def free(self, app: str, alias: str, plan: str | None) -> bool:
        """Whether an add-on of that plan can be attached to the app under that name."""
        wanted = {f"{alias}_URL", f"{alias}_KEY", *([f"{alias}_MODEL_ID"] if plan else [])}
        return alias not in self.aliases(app) and not wanted & self.vars[app].keys()


class Changes(RuleBasedStateMachine):
    """Every change over HTTP, with the model saying what must come of it."""

    apps, addons, attachments = Bundle("apps"), Bundle("addons"), Bundle("attachments")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-model-")
        self._running = running_plane(Path(self._folder.name))
        self.plane: Plane = self._running.__enter__()
        self.model = Model()
        self.count = 0

    def teardown(self) -> None:
        """Ends the plane."""
        self._running.__exit__(None, None, None)
        self._folder.cleanup()

    def send(self, method: str, path: str, *, allowed: bool, **body: object) -> dict[str, object] | None:
        """The answer of a call that must succeed when it is allowed, and else be refused cleanly."""
        reply = self.plane.http.request(method, path, json=body)
        expected = (200, 201) if allowed else (404, 422)
        assert reply.status_code in expected, (method, path, body, reply.text)
        found: dict[str, object] = reply.json()
        return found if allowed else None

    @initialize(target=apps)
    def first_app(self) -> str:
        """There is an app from the start."""
        return self._create()

    @rule(target=apps)
    def create_app(self) -> str:
        """POST /apps."""
        return self._create()

    def _create(self) -> str:
        self.count += 1
        made = self.send("POST", "/apps", allowed=True, name=f"app-{self.count}") or {}
        app = str(made["id"])
        self.model.names[app], self.model.vars[app] = str(made["name"]), {}
        return app

    @rule(app=apps, other=apps)
    def rename_to_a_taken_name(self, app: str, other: str) -> None:
        """PATCH /apps/APP to the name that some app has: only its own is free."""
        if app in self.model.names and other in self.model.names:
            taken = self.model.names[other]
            self.send("PATCH", f"/apps/{app}", allowed=app == other, name=taken)

    @rule(app=apps)
    def rename(self, app: str) -> None:
        """PATCH /apps/APP."""
        self.count += 1
        known = app in self.model.names
        self.send("PATCH", f"/apps/{app}", allowed=known, name=f"app-{self.count}")
        if known:
            self.model.names[app] = f"app-{self.count}"

    @rule(target=addons, app=apps, plan=st.sampled_from(sorted(PLANS)), alias=ALIASES)
    def provision(self, app: str, plan: str, alias: str) -> str:
        """POST /apps/APP/addons."""
        allowed = app in self.model.names and self.model.free(app, alias, PLANS[plan])
        body = {"plan": f"heroku-inference:{plan}", "attachment": {"name": alias}}
        made = self.send("POST", f"/apps/{app}/addons", allowed=allowed, **body)
        if made is None:
            return "none"
        addon = str(made["id"])
        self.model.owners[addon], self.model.plans[addon] = app, PLANS[plan]
        path = f"/apps/{app}/addon-attachments/{alias}"
        self.model.attached[str(self.plane.ok("GET", path)["id"])] = Attached(addon, app, alias)
        return addon

    @rule(target=attachments, addon=addons, app=apps, alias=ALIASES)
    def attach(self, addon: str, app: str, alias: str) -> str:
        """POST /addon-attachments."""
        known = addon in self.model.owners and app in self.model.names
        allowed = known and self.model.free(app, alias, self.model.plans[addon])
        made = self.send("POST", "/addon-attachments", allowed=allowed, addon=addon, app=app, name=alias.lower())
        if made is None:
            return "none"
        self.model.attached[str(made["id"])] = Attached(addon, app, alias)
        return str(made["id"])

    @rule(attachment=attachments)
    def detach(self, attachment: str) -> None:
        """DELETE /addon-attachments/ID; the second time it is gone."""
        self.send("DELETE", f"/addon-attachments/{attachment}", allowed=attachment in self.model.attached)
        self.model.attached.pop(attachment, None)

    @rule(addon=addons, force=st.booleans())
    def destroy_addon(self, addon: str, force: bool) -> None:
        """DELETE /apps/APP/addons/ADDON: without force only when no other app uses it."""
        owner = self.model.owners.get(addon)
        if owner is None:
            return
        shared = any(one.addon == addon and one.app != owner for one in self.model.attached.values())
        allowed = force or not shared
        self.send("DELETE", f"/apps/{owner}/addons/{addon}", allowed=allowed, force=force)
        if allowed:
            self._forget(addon)

    @precondition(lambda self: len(self.model.names) > 1)
    @rule(app=consumes(apps))
    def destroy_app(self, app: str) -> None:
        """DELETE /apps/APP, with its add-ons wherever they are attached."""
        self.send("DELETE", f"/apps/{app}", allowed=app in self.model.names)
        for addon in [addon for addon, owner in self.model.owners.items() if owner == app]:
            self._forget(addon)
        self.model.attached = {id_: one for id_, one in self.model.attached.items() if one.app != app}
        self.model.names.pop(app, None)
        self.model.vars.pop(app, None)

    @rule(app=apps, name=st.sampled_from(["A", "CHAT_URL", "OTHER_MODEL_ID"]), value=st.none() | st.text("xyz ü"))
    def set_var(self, app: str, name: str, value: str | None) -> None:
        """PATCH /apps/APP/config-vars: what an attachment brings cannot be set or unset."""
        known = app in self.model.names
        allowed = known and name not in self.model.claimed(app)
        self.send("PATCH", f"/apps/{app}/config-vars", allowed=allowed, **{name: value})
        if allowed and value is None:
            self.model.vars[app].pop(name, None)
        elif allowed and value is not None:
            self.model.vars[app][name] = value

    @invariant()
    def the_plane_agrees(self) -> None:
        """Apps, attachments, config vars and keys are those of the model, and nothing else is there."""
        assert {app["id"]: app["name"] for app in self.plane.ok("GET", "/apps")} == self.model.names
        listed = self.plane.ok("GET", "/addon-attachments")
        found = {one["id"]: Attached(one["addon"]["id"], one["app"]["id"], one["name"]) for one in listed}
        assert found == self.model.attached
        assert {addon["id"] for addon in self.plane.ok("GET", "/addons")} == self.model.owners.keys()
        for app, own in self.model.vars.items():
            config = self.plane.config(app)
            assert config.keys() == own.keys() | self.model.claimed(app)
            assert own.items() <= config.items()
            for id_, one in self.model.attached.items():
                if one.app == app:
                    self._check_attachment(id_, one, config)
        assert count_orphans(self.plane) == 0
        assert rows(self.plane, "api_keys") == len(self.model.attached)

    def _check_attachment(self, id_: str, one: Attached, config: dict[str, str]) -> None:
        plan = self.model.plans[one.addon]
        assert config[f"{one.alias}_URL"] == GATEWAY
        assert plan is None or config[f"{one.alias}_MODEL_ID"] == plan
        principal = self.plane.principal(config[f"{one.alias}_KEY"])
        assert principal is not None
        assert (principal.attachment_id, principal.addon_id, principal.model_id) == (id_, one.addon, plan)
        assert principal.app_name == self.model.names[one.app]

    def _forget(self, addon: str) -> None:
        del self.model.owners[addon]
        self.model.attached = {id_: one for id_, one in self.model.attached.items() if one.addon != addon}


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
