"""The commands on keys, and times as people write them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.durations import duration_text, end_text, parse_duration, parse_expiry
from tests.cli.program import Penstock

SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
parts = st.lists(st.tuples(st.integers(0, 999_999_999), st.sampled_from("wdhms")), min_size=1, max_size=6)


def refused(parse: Callable[[str], object], text: str) -> str | None:
    """Why the text is refused, or None."""
    try:
        parse(text)
    except click.BadParameter as error:
        return error.message
    return None


@given(parts)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == sum(number * SECONDS[unit] for number, unit in parts)
    if parse_duration(text) <= 3650 * 86_400:
        assert parse_expiry(text) == {"expires_in": parse_duration(text)}
    else:
        assert refused(parse_expiry, text) == f"{text} is too long; 3650d is the longest."


@given(st.text(max_size=12))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    refusals = [refusal for parse in (parse_duration, parse_expiry) if (refusal := refused(parse, text)) is not None]
    assert all(repr(text) in refusal for refusal in refusals)
    assert refusals or text == "0" or parse_duration(text) >= 0


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "1.5h", "10 m", "10M", "m10", "٣m", "1h-", "9999999999d"])
def test_these_are_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_duration(text)


def test_an_expiry_is_a_duration_or_a_date() -> None:
    assert parse_duration("0") == 0
    assert parse_expiry("30d") == {"expires_in": 30 * 86_400}
    assert parse_expiry("2030-12-31") == {"expires_at": "2030-12-31T00:00:00+00:00"}
    assert parse_expiry("2030-12-31T10:00:00+02:00") == {"expires_at": "2030-12-31T10:00:00+02:00"}
    with pytest.raises(click.BadParameter):
        parse_expiry("0")


@pytest.fixture
def shop(penstock: Penstock, app: str) -> str:
    """An app with the standard plan as INFERENCE."""
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app, "--as", "INFERENCE")
    return app


def test_create_prints_the_secret_alone_on_stdout(penstock: Penstock, shop: str) -> None:
    done = penstock("keys:create", "-a", shop, "--as", "INFERENCE", "--models", "claude-4-5-sonnet", "--expires", "30d")
    assert done.returncode == 0
    [secret] = done.stdout.splitlines()
    assert secret.startswith("inf-")
    assert done.stderr == f"Creating a key for INFERENCE on ⬢ {shop}... done\n"
    shown, made = sorted(penstock.json("keys", "-a", shop, "--json"), key=lambda one: bool(one["extra"]))
    assert (made["prefix"], made["models"], made["extra"]) == (secret[:12], ["claude-4-5-sonnet"], True)
    life = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < life <= timedelta(days=30)
    assert penstock.ok("config:get", "INFERENCE_KEY", "-a", shop).startswith(shown["prefix"])


def test_create_under_a_new_name_sets_its_config_vars(penstock: Penstock, shop: str) -> None:
    done = penstock("keys:create", "-a", shop, "--as", "partner")
    assert done.returncode == 0
    assert "done, set PARTNER_KEY, v" in done.stderr
    assert penstock.ok("config:get", "PARTNER_KEY", "-a", shop) == done.stdout.strip()


def test_the_list_shows_no_secret(penstock: Penstock, shop: str) -> None:
    secret = penstock.ok("keys:create", "-a", shop, "--as", "INFERENCE")
    listed = penstock.ok("keys", "-a", shop)
    assert secret not in listed
    (row,) = (line.split() for line in listed.splitlines() if line.startswith(secret[:12]))
    assert row[1:4] == ["INFERENCE", "(extra)", "all"]
    assert listed.splitlines()[0].split("  ")[0] == "Key"


def test_an_app_without_keys_says_so(penstock: Penstock, app: str) -> None:
    assert penstock.ok("keys", "-a", app) == f"⬢ {app} has no keys."
    assert penstock.json("keys", "-a", app, "--json") == []


def test_rotate_prints_the_new_key_and_when_the_old_one_ends(penstock: Penstock, shop: str) -> None:
    done = penstock("keys:rotate", "INFERENCE", "-a", shop)
    assert (done.returncode, done.stderr) == (0, f"Rotating INFERENCE on ⬢ {shop}... done, the old key ends in 10m\n")
    assert penstock.ok("config:get", "INFERENCE_KEY", "-a", shop) == done.stdout.strip()
    assert [key["expires_at"] is None for key in penstock.json("keys", "-a", shop, "--json")].count(True) == 1
    marks = {
        line.split()[0]: line.split("(")[1].split(")")[0] for line in penstock.ok("keys", "-a", shop).split("inf-")[1:]
    }
    assert marks.pop(done.stdout[4:12]) == "in INFERENCE_KEY"
    assert list(marks.values()) == ["rotated"]
    last = penstock("keys:rotate", "INFERENCE", "-a", shop, "--grace", "0")
    assert "refused everywhere" in last.stderr
    assert [key["prefix"] for key in penstock.json("keys", "-a", shop, "--json")] == [last.stdout[:12]]


def test_revoke_asks_for_the_app_and_says_what_is_gone(penstock: Penstock, shop: str) -> None:
    [key] = penstock.json("keys", "-a", shop, "--json")
    assert "--confirm" in penstock.refused("keys:revoke", key["prefix"], "-a", shop)
    done = penstock("keys:revoke", key["prefix"], "-a", shop, "-c", shop)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith(f"done, {key['prefix']}\n")
    assert penstock.json("keys", "-a", shop, "--json") == []
    assert "Couldn't find that key." in penstock.refused("keys:revoke", "INFERENCE", "-a", shop, "-c", shop)


def test_an_attachment_without_a_key_leads_to_the_command_that_makes_one(penstock: Penstock, shop: str) -> None:
    penstock.ok("keys:revoke", "INFERENCE", "-a", shop, "-c", shop)
    cure = f"keys:create -a {shop} --as INFERENCE"
    for line in (["keys:rotate", "INFERENCE"], ["ai:models:call", "INFERENCE", "-p", "hi"]):
        assert f"INFERENCE has no key; make one with: penstock {cure}" in penstock.refused(*line, "-a", shop)
    assert "=== standard" in penstock.ok("ai:models:info", "INFERENCE", "-a", shop)
    penstock.ok(*cure.split())
    assert penstock.ok("ai:models:call", "INFERENCE", "-a", shop, "-p", "hi") == "echo: hi"


@given(st.integers(0, 10**9))
def test_a_duration_is_written_as_it_is_read(seconds: int) -> None:
    assert parse_duration(duration_text(seconds)) == seconds


def test_an_end_that_is_past_is_said() -> None:
    assert end_text(None) == "never"
    assert end_text("2999-01-01T00:00:00Z") == "2999-01-01T00:00:00Z"
    assert end_text("2020-01-01T00:00:00Z") == "2020-01-01T00:00:00Z (expired)"


def test_a_wrong_time_or_model_is_one_clear_line(penstock: Penstock, shop: str) -> None:
    create, rotate = ["keys:create", "-a", shop, "--as", "X"], ["keys:rotate", "INFERENCE", "-a", shop]
    assert "'--expires': 'soon' is neither" in penstock.refused(*create, "--expires", "soon", code=2)
    assert "'--expires': 4000d is too long; 3650d" in penstock.refused(*create, "--expires", "4000d", code=2)
    assert "'--grace': '10' is no duration" in penstock.refused(*rotate, "--grace", "10", code=2)
    assert "'--grace': 8d is too long; 7d is the longest." in penstock.refused(*rotate, "--grace", "8d", code=2)
    assert "models[1]" in penstock.refused(
        "keys:create", "-a", shop, "--as", "INFERENCE", "--models", "claude-4-5-sonnet,x"
    )
