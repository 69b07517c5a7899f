"""How the CLI finds the control plane, which token it sends where, and what it says when something is wrong."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.cli.double import Asked, send, serving
from tests.cli.program import Penstock


def account(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    """A control plane on which everybody is one person."""
    send(handler, 200, {"email": "me@example.com"})


def put(home: str, name: str, text: str) -> None:
    """Write a file of the home."""
    path = Path(home) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_server_that_is_not_running_is_said_in_one_line(offline: Penstock) -> None:
    told = offline.refused("apps")
    assert told.endswith("Error: Penstock is not running at http://127.0.0.1:9; start it with: penstock serve\n")
    assert told.count("\n") == 1


def test_where_nothing_names_the_server_the_way_to_one_elsewhere_is_told(offline: Penstock) -> None:
    guessing = offline.within(PENSTOCK_CONTROL_URL="", PENSTOCK_CONTROL_PORT="9")
    told = guessing.refused("whoami")
    assert "not running at http://127.0.0.1:9; start it with: penstock serve\n" in told
    assert "Or log in to one elsewhere: penstock login --control-url URL" in told
    assert "--control-url" not in guessing.refused("whoami", "--control-url", "http://127.0.0.1:9")


def test_the_flag_wins_over_the_environment_and_that_over_the_ready_file(offline: Penstock) -> None:
    with serving(account) as by_flag, serving(account) as by_env, serving(account) as by_file:
        put(offline.env["PENSTOCK_HOME"], "run/ready.json", json.dumps({"control": by_file.url}))
        penstock = offline.within(PENSTOCK_CONTROL_URL=by_env.url, HEROKU_API_KEY="k")
        penstock.ok("whoami", "--control-url", by_flag.url)
        penstock.ok("whoami")
        penstock.within(PENSTOCK_CONTROL_URL="").ok("whoami")
        assert [len(double.asked) for double in (by_flag, by_env, by_file)] == [1, 1, 1]


def test_the_operators_token_is_found_and_the_environment_wins_over_it(offline: Penstock) -> None:
    put(offline.env["PENSTOCK_HOME"], "tokens/operator", "pst-file\n")
    with serving(account) as double:
        penstock = offline.within(PENSTOCK_CONTROL_URL=double.url)
        penstock.ok("whoami")
        penstock.within(HEROKU_API_KEY="heroku-key").ok("whoami")
        penstock.within(HEROKU_API_KEY="heroku-key", PENSTOCK_CONTROL_TOKEN="own").ok("whoami")
    sent = [asked.headers["authorization"] for asked in double.asked]
    assert sent == ["Bearer pst-file", "Bearer heroku-key", "Bearer own"]


def test_the_headers_are_the_heroku_clis(offline: Penstock) -> None:
    with serving(account) as double:
        offline.within(PENSTOCK_CONTROL_URL=double.url, HEROKU_API_KEY="k").ok("whoami")
    headers = double.asked[0].headers
    assert headers["accept"] == "application/vnd.heroku+json; version=3"
    assert headers["user-agent"].startswith("penstock-cli/")
    assert headers["request-id"]


def test_the_operators_token_is_not_sent_to_another_machine(offline: Penstock) -> None:
    put(offline.env["PENSTOCK_HOME"], "tokens/operator", "pst-file\n")
    with serving(lambda handler, asked: send(handler, 401, {"id": "unauthorized", "message": "who?"})) as proxy:
        penstock = offline.within(PENSTOCK_CONTROL_URL="http://penstock.test", HTTP_PROXY=proxy.url, http_proxy="")
        told = penstock.refused("apps")
    assert [asked.headers.get("authorization") for asked in proxy.asked] == [None]
    assert "penstock auth:login" in told


def test_a_proxy_is_not_used_for_this_machine(offline: Penstock) -> None:
    with serving(account) as double, serving(account) as proxy:
        penstock = offline.within(PENSTOCK_CONTROL_URL=double.url, HTTP_PROXY=proxy.url, HEROKU_API_KEY="k")
        penstock.ok("whoami")
    assert not proxy.asked


def test_a_refused_token_names_where_it_came_from(penstock: Penstock) -> None:
    told = penstock.within(HEROKU_API_KEY="wrong-key-of-mine").refused("apps")
    assert "HEROKU_API_KEY" in told
    assert "wrong-key-of-mine" not in told


def test_an_answer_that_is_no_json_is_one_clear_line(offline: Penstock) -> None:
    with serving(lambda handler, asked: send(handler, 200, b"<html>")) as double:
        told = offline.within(PENSTOCK_CONTROL_URL=double.url, HEROKU_API_KEY="k").refused("apps")
    assert "is it a Penstock control plane?" in told


def test_an_error_without_a_message_still_says_what_was_asked(offline: Penstock) -> None:
    with serving(lambda handler, asked: send(handler, 502, b"bad gateway")) as double:
        told = offline.within(PENSTOCK_CONTROL_URL=double.url, HEROKU_API_KEY="k").refused("whoami")
    assert "GET /account: 502" in told


def test_control_characters_of_a_server_do_not_reach_the_terminal(offline: Penstock) -> None:
    def hostile(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        send(handler, 422, {"id": "invalid_params", "message": "bad\x1b[2Jname"})

    with serving(hostile) as double:
        told = offline.within(PENSTOCK_CONTROL_URL=double.url, HEROKU_API_KEY="k").refused("create", "x")
    assert "\x1b" not in told


def test_a_list_in_pages_is_read_to_its_end(offline: Penstock) -> None:
    def paged(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        if asked.path == "/account":
            send(handler, 200, {"email": "me@example.com"})
        elif asked.headers.get("range"):
            send(handler, 200, [{"name": "zweite", "owner": {"email": "me@example.com"}}])
        else:
            send(
                handler,
                206,
                [{"name": "erste", "owner": {"email": "me@example.com"}}],
                headers={"Next-Range": "name ]erste..; max=1"},
            )

    with serving(paged) as double:
        shown = offline.within(PENSTOCK_CONTROL_URL=double.url, HEROKU_API_KEY="k").ok("apps")
    assert shown.splitlines()[-2:] == ["erste", "zweite"]


def test_a_warning_of_the_server_is_shown_on_stderr(offline: Penstock) -> None:
    def warning(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        send(handler, 200, {"email": "me@example.com"}, headers={"X-Heroku-Warning": "soon over"})

    with serving(warning) as double:
        done = offline.within(PENSTOCK_CONTROL_URL=double.url, HEROKU_API_KEY="k")("whoami")
    assert done.stdout == "me@example.com\n"
    assert "Warning: soon over" in done.stderr


def test_a_bad_address_is_a_usage_error(offline: Penstock) -> None:
    assert "http://" in offline.within(PENSTOCK_CONTROL_URL="localhost:8401").refused("apps", code=2)


def test_only_the_debug_variable_shows_a_traceback(offline: Penstock) -> None:
    assert "Traceback" in offline.within(PENSTOCK_DEBUG="1")("apps").stderr


def test_an_address_that_is_the_gateways_is_said(offline: Penstock) -> None:
    body = {"error": {"message": "no such route", "code": "route_not_found"}, "message": "no such route"}
    for status in (401, 404):
        with serving(lambda handler, asked, status=status: send(handler, status, body)) as gateway:  # type: ignore[misc]
            told = offline.refused("apps", "--control-url", gateway.url, code=2)
        assert f"{gateway.url} is the gateway" in told
