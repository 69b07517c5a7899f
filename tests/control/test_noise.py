"""Whatever JSON arrives, the answer is one that the page documents."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.control.plane import Plane

DOCUMENTED = {200, 201, 400, 404, 422}
BOUNDED = ("model", "key", "amount", "period", "currency", "alerts", "max_tokens", "requests_per_minute")
FIELDS = (
    "name",
    "region",
    "stack",
    "plan",
    "attachment",
    "config",
    "addon",
    "app",
    "addon_attachment",
    "force",
    "A_B",
    *BOUNDED,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
REAL = st.sampled_from(("noisy", "heroku-inference", "heroku-inference:chat-small", "INFERENCE", "noisy::INFERENCE"))
NAMED = st.fixed_dictionaries({}, optional={"name": REAL | SCALARS, "id": REAL | SCALARS})
VALUES = REAL | NAMED | SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(), SCALARS, max_size=2)
BODIES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), VALUES, max_size=6)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/apps"),
        ("PATCH", "/apps/noisy"),
        ("POST", "/apps/noisy/addons"),
        ("DELETE", "/apps/noisy/addons/heroku-inference"),
        ("POST", "/addon-attachments"),
        ("POST", "/actions/addons/resolve"),
        ("POST", "/actions/addon-attachments/resolve"),
        ("PATCH", "/apps/noisy/config-vars"),
        ("PATCH", "/apps/noisy/limits"),
        ("PUT", "/apps/noisy/budgets"),
        ("PATCH", "/limits"),
    ],
)
def test_noise_never_gets_an_undocumented_answer(new_plane: Plane, method: str, path: str) -> None:
    new_plane.addon(new_plane.app("noisy"))

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(BODIES)
    def send(body: dict[str, object]) -> None:
        reply = new_plane.http.request(method, path, json=body)
        assert reply.status_code in DOCUMENTED, (body, reply.text)
        assert reply.status_code < 400 or {"id", "message"} <= reply.json().keys()

    send()
