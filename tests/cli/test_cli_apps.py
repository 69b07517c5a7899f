"""Apps and config vars through the console script."""

from tests.cli.program import Penstock


def test_create_prints_the_address_and_keeps_progress_off_stdout(penstock: Penstock) -> None:
    done = penstock("create", "cli-created")
    assert done.returncode == 0
    assert done.stdout == penstock.json("apps:info", "cli-created", "--json")["app"]["web_url"] + "\n"
    assert done.stderr == "Creating ⬢ cli-created... done\n"
    penstock.ok("apps:destroy", "cli-created", "-c", "cli-created")


def test_create_without_a_name_says_which_name_it_got(penstock: Penstock) -> None:
    made = penstock.json("apps", "create", "--json")
    assert made["name"]
    penstock.ok("destroy", "-a", made["name"], "--confirm", made["name"])


def test_a_taken_name_is_refused(penstock: Penstock, app: str) -> None:
    told = penstock.refused("create", app)
    assert f"Creating ⬢ {app}... !" in told
    assert "taken" in told
    assert "Error ID: invalid_params" in told


def test_apps_lists_names_under_the_account(penstock: Penstock, app: str) -> None:
    lines = penstock.ok("apps").splitlines()
    assert lines[0] == "=== operator@penstock.local Apps"
    assert app in lines
    assert penstock.ok("apps", "-A").splitlines()[0] == "=== Apps"
    assert app in penstock.ok("apps", "-A").splitlines()
    assert app in [one["name"] for one in penstock.json("apps", "--json")]


def test_apps_info_shows_the_app_in_three_forms(penstock: Penstock, app: str) -> None:
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app)
    shown = penstock.ok("apps:info", app)
    assert shown.startswith(f"=== {app}\n")
    assert "heroku-inference:standard" in shown
    assert "git" not in shown.lower()
    assert "addons=heroku-inference:standard" in penstock.ok("apps:info", "-a", app, "-s").splitlines()
    assert penstock.json("info", app, "-j")["app"]["name"] == app


def test_an_unknown_app_is_refused_with_the_servers_words(penstock: Penstock) -> None:
    told = penstock.refused("apps:info", "no-such-app")
    assert "Couldn't find that app." in told
    assert "Error ID: not_found" in told


def test_destroy_asks_for_the_name_and_refuses_without_a_terminal(penstock: Penstock, app: str) -> None:
    assert f"--confirm {app}" in penstock.refused("apps:destroy", app, stdin=f"{app}\n")
    assert "did not match" in penstock.refused("apps:destroy", app, "--confirm", "other")
    assert penstock.ok("apps:info", app)


def test_config_vars_are_set_shown_and_unset(penstock: Penstock, app: str) -> None:
    done = penstock("config:set", 'GREETING=it\'s a "day"', "OTHER=1", "-a", app)
    assert "Setting GREETING, OTHER and restarting" in done.stderr
    assert "done, v" in done.stderr
    assert 'GREETING: it\'s a "day"' in done.stdout
    assert penstock.ok("config:get", "GREETING", "-a", app) == 'it\'s a "day"'
    assert penstock.json("config", "-a", app, "--json") == {"GREETING": 'it\'s a "day"', "OTHER": "1"}
    assert penstock.ok("config", "-a", app).startswith(f"=== ⬢ {app} Config Vars\n")
    assert "done, v" in penstock("config:unset", "GREETING", "-a", app).stderr
    assert penstock.ok("config:get", "GREETING", "-a", app) == ""


def test_config_get_prints_an_empty_line_for_a_key_that_is_not_set(penstock: Penstock, app: str) -> None:
    done = penstock("config:get", "NOTHING", "-a", app)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
    assert penstock.json("config:get", "NOTHING", "-a", app, "--json") == {"key": "NOTHING", "value": None}


def test_the_shell_form_can_be_read_by_a_shell(penstock: Penstock, app: str) -> None:
    import subprocess

    penstock.ok("config:set", "A=two words; $(false)", "-a", app)
    line = penstock.ok("config:get", "A", "-a", app, "-s")
    read = subprocess.run(["sh", "-c", f'{line}\nprintf %s "$A"'], capture_output=True, text=True, check=True)
    assert read.stdout == "two words; $(false)"
    assert line in penstock.ok("config", "-a", app, "--shell").splitlines()


def test_heroku_app_stands_in_for_the_option(penstock: Penstock, app: str) -> None:
    penstock.within(HEROKU_APP=app).ok("config:set", "A=1")
    assert penstock.within(HEROKU_APP=app).ok("config", "get", "A") == "1"


def test_a_pair_without_an_equals_sign_is_refused(penstock: Penstock, app: str) -> None:
    assert "FOO=bar" in penstock.refused("config:set", "NOPE", "-a", app)


def test_an_empty_value_is_shown_as_such(penstock: Penstock, app: str) -> None:
    assert penstock.ok("config:set", "EMPTY=", "FULL=1", "-a", app).splitlines() == ["EMPTY:", "FULL:  1"]
    assert "EMPTY:" in penstock.ok("config", "-a", app).splitlines()
    assert "EMPTY=''" in penstock.ok("config", "-a", app, "-s").splitlines()


def test_a_name_that_no_shell_takes_is_left_out_of_the_shell_form(penstock: Penstock, app: str) -> None:
    penstock.ok("config:set", "has.dot=1", "PLAIN=2", "-a", app)
    for line in (["config", "-s"], ["config:get", "-s", "has.dot", "PLAIN"]):
        done = penstock(*line, "-a", app)
        assert (done.returncode, done.stdout) == (0, "PLAIN=2\n")
        assert done.stderr == "has.dot is left out: no shell takes that as a variable's name.\n"
