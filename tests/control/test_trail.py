"""The audit trail that changes leave: who, what, from where, before and after, and never a secret."""

from tests.control.plane import EMAIL, Plane


def trail(plane: Plane) -> list[tuple[str, str | None, object, object]]:
    """(action, name, before, after) of every event."""
    return [(event.action, event.object_name, event.before, event.after) for event in plane.events()]


def test_every_change_leaves_an_event_with_who_and_from_where(new_plane: Plane) -> None:
    app = new_plane.app("shop")
    addon = new_plane.addon(app)["name"]
    new_plane.ok("PATCH", f"/apps/{app}", name="store")
    new_plane.ok("DELETE", "/apps/store")
    events = new_plane.events()
    assert {(event.actor_email, event.source) for event in events} == {(EMAIL, "127.0.0.1")}
    assert len({event.request_id for event in events}) == 4
    assert [(event.action, event.app_name) for event in events] == [
        ("app.create", "shop"),
        ("addon.create", "shop"),
        ("attachment.create", "shop"),
        ("app.update", "store"),
        ("attachment.destroy", "store"),
        ("addon.destroy", "store"),
        ("app.destroy", "store"),
    ]
    assert trail(new_plane)[3] == ("app.update", "store", {"name": "shop"}, {"name": "store"})
    assert trail(new_plane)[5][:3] == ("addon.destroy", addon, {"name": addon, "plan": "heroku-inference:standard"})


def test_values_of_config_vars_and_keys_never_enter_the_trail(new_plane: Plane) -> None:
    app = new_plane.app("shop")
    new_plane.addon(app)
    new_plane.ok("PATCH", f"/apps/{app}/config-vars", TOKEN="very-secret-1", OTHER="very-secret-2")
    new_plane.http.patch(f"/apps/{app}/config-vars", json={"TOKEN": None, "OTHER": "very-secret-3"})
    assert trail(new_plane)[-2:] == [
        ("config.update", "shop", {}, {"OTHER": "[hidden]", "TOKEN": "[hidden]"}),
        ("config.update", "shop", {"OTHER": "[hidden]", "TOKEN": "[hidden]"}, {"OTHER": "[hidden]"}),
    ]
    written = repr(new_plane.stores.audit.list())
    assert "very-secret" not in written
    assert new_plane.config(app)["INFERENCE_KEY"] not in written


def test_a_refused_change_leaves_no_event(new_plane: Plane) -> None:
    new_plane.app("shop")
    before = len(new_plane.stores.audit.list())
    new_plane.refused("POST", "/apps", name="shop")
    new_plane.refused("POST", "/apps/shop/addons", plan="heroku-inference:standard", attachment={"name": "1BAD"})
    assert len(new_plane.stores.audit.list()) == before
