"""The OpenAPI document is valid and complete, and the plane keeps to it, whatever it is sent.

PENSTOCK_SOAK=1 sends more of what is made at random; the bounds of every field are tried either way.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis

from penstock.control.openapi import document
from penstock.web.api import Route
from tests.control.plane import Plane
from tests.control.test_roles import table
from tests.server import ROOT

EXAMPLES = 10 if os.environ.get("PENSTOCK_SOAK") else 3


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document(table(), version="0")))
    return found


def operations(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in told["paths"].values() for operation in path.values()]


def test_the_document_is_served_to_anybody_and_is_valid_openapi_3_1(plane: Plane) -> None:
    replies = [httpx.get(f"{plane.url}{path}", trust_env=False) for path in ("/schema", "/openapi.json")]
    assert replies[0].json() == replies[1].json()
    assert replies[0].json()["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(replies[0].json()).validate()


def test_every_route_is_described_under_a_name_of_its_own(told: dict[str, Any]) -> None:
    found = {f"{method.upper()} {path}" for path, methods in told["paths"].items() for method in methods}
    assert found == {f"{route.method} {route.path}" for route in table()}
    names = [operation["operationId"] for operation in operations(told)]
    assert len(set(names)) == len(names)
    for operation in operations(told):
        assert operation["summary"]
        assert operation["tags"]
        assert all(parameter["description"] for parameter in operation["parameters"])


def test_a_route_without_a_description_has_no_document() -> None:
    bare = [msgspec.structs.replace(route, doc=None) if route.path == "/apps" else route for route in table()]
    with pytest.raises(LookupError, match="POST /apps has no description"):
        document(bare, version="0")


def test_only_the_public_routes_are_described_as_open(told: dict[str, Any]) -> None:
    open_ = {route_name for route_name, operation in by_route(told).items() if not operation["security"]}
    assert open_ == {f"{route.method} {route.path}" for route in table() if route.access.value == "public"}
    assert not [
        name
        for name, operation in by_route(told).items()
        if operation["security"] and "401" not in operation["responses"]
    ]


def test_every_creating_route_takes_an_idempotency_key(told: dict[str, Any]) -> None:
    creating = [route for route in table() if route.creates]
    assert {route.path for route in creating} >= {"/apps", "/apps/{app}/addons", "/addon-attachments"}
    for route in creating:
        headers = {parameter["name"] for parameter in by_route(told)[name_of(route)]["parameters"]}
        assert "Idempotency-Key" in headers


@pytest.mark.timeout(300)
def test_whatever_is_sent_the_answer_is_one_that_the_document_promises(new_plane: Plane) -> None:
    config = Path(__file__).with_name("schemathesis.toml")
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            f"--config-file={config}",
            "run",
            f"{new_plane.url}/schema",
            f"--header=Authorization: Bearer {new_plane.token}",
            f"--max-examples={EXAMPLES}",
            "--generation-deterministic",
            "--no-shrink",
            # The document cannot know which plans there are and which names are taken.
            "--exclude-checks=positive_data_acceptance",
            "--warnings=off",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=new_plane.home,
        # Seconds of each run go into Hypothesis's tables of characters, unless it finds them where it left them.
        env=os.environ | {"NO_COLOR": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis")},
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    tested = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", done.stdout)
    assert tested is not None, done.stdout
    assert len(set(tested.groups())) == 1
    assert int(tested[1]) >= len(table()) - 1


def by_route(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{method.upper()} {path}": op for path, methods in told["paths"].items() for method, op in methods.items()}


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"
