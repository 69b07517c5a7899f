"""The error table and the body that clients read."""

import re

import pytest

from penstock.domain.errors import CODES, PenstockError, UpstreamError


def test_the_body_is_the_envelope_with_the_message_at_the_top_once_more() -> None:
    error = PenstockError("invalid_value", "temperature must be from 0 to 2", param="temperature")
    assert error.body() == {
        "error": {
            "message": "temperature must be from 0 to 2",
            "type": "invalid_request_error",
            "code": "invalid_value",
            "param": "temperature",
        },
        "message": "temperature must be from 0 to 2",
    }


def test_the_code_fixes_the_status() -> None:
    assert PenstockError("engine_not_ready", "wait").status == 503
    assert UpstreamError("upstream_closed", "cut").status == 502


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_code_is_well_formed(code: str) -> None:
    row = CODES[code]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert 400 <= row.status < 600
    assert row.remedy.endswith(".")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "authorization_error"),
        (503, "server_error"),
    ],
)
def test_a_status_has_the_type_that_clients_know(status: int, kind: str) -> None:
    assert {row.type for row in CODES.values() if row.status == status} == {kind}
