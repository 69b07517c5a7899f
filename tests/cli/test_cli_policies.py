"""The commands on how an app is treated, and on what is kept of its prompts."""

import pytest

from tests.cli.program import Penstock


def test_a_policy_is_changed_and_shown(penstock: Penstock, app: str) -> None:
    assert "Weight:       1" in penstock.ok("policy", "-a", app)
    words = ("--weight", "3", "--reserve", "25", "--cache-ttl", "3600", "--keep-content", "30")
    changed = penstock.ok("policy:set", "-a", app, *words)
    for line in ("Weight:       3", "Reserve:      25 %", "Cache:        for 1h", "Keep content: for 30 days"):
        assert line in changed
    assert changed in penstock.ok("policy", "-a", app)
    penstock.ok("policy:set", "-a", app, "--cache-ttl", "off", "--reserve", "0")
    policy = penstock.json("policy", "-a", app, "--json")
    assert (policy["weight"], policy["reserve_percent"], policy["cache_ttl_s"]) == (3, 0, None)
    assert policy["content_days"] == 30


def test_keeping_less_asks_first_and_keeping_more_does_not(penstock: Penstock, app: str) -> None:
    penstock.ok("policy:set", "-a", app, "--keep-content", "7")
    penstock.ok("policy:set", "-a", app, "--keep-content", "9")
    for less in ("off", "3"):
        assert "deletes prompts" in penstock.refused("policy:set", "-a", app, "--keep-content", less)
        assert penstock.json("policy", "-a", app, "--json")["content_days"] == 9
    penstock.ok("policy:set", "-a", app, "--keep-content", "off", "--confirm", app)
    assert penstock.json("policy", "-a", app, "--json")["content_days"] is None
    penstock.ok("policy:set", "-a", app, "--keep-content", "off")


@pytest.mark.parametrize(
    "words",
    [(), ("--weight", "0"), ("--weight", "x"), ("--reserve", "101"), ("--cache-ttl", "1h"), ("--keep-content", "0"),
     ("--keep-content", "-1"), ("--keep-content", "4000"), ("--keep-content", "OFF")],
)  # fmt: skip
def test_what_is_no_policy_is_refused_before_anything_is_asked(
    penstock: Penstock, app: str, words: tuple[str, ...]
) -> None:
    done = penstock("policy:set", "-a", app, *words)
    assert (done.returncode, done.stdout) == (2, "")


def test_of_an_app_that_keeps_nothing_nothing_is_shown_but_the_remedy(penstock: Penstock, app: str) -> None:
    done = penstock("contents", "-a", app)
    assert (done.returncode, done.stdout) == (0, "Nothing is kept.\n")
    assert f"penstock policy:set -a {app} --keep-content DAYS" in done.stderr
    assert penstock.json("contents", "-a", app, "--request", "req_1", "--since", "1h", "--json") == []
    assert "since must be" in penstock.refused("contents", "-a", app, "--since", "soon")
