"""The reader of the published pages, on text that is broken the way theirs is."""

from tests.acceptance.published import commands, exports


def test_a_command_ends_at_a_comment_and_the_next_one_follows_it() -> None:
    page = "# Make: heroku create $APP # or not # Then: heroku addons:create a:b -a $APP --as NAMEInstall it\n"
    assert commands(page) == ["heroku create $APP", "heroku addons:create a:b -a $APP --as NAME"]


def test_prose_about_the_product_is_no_command() -> None:
    assert commands("install the Heroku CLI, see @heroku/plugin-ai and Why is Heroku so cool?") == []


def test_a_fetched_variable_is_an_export_and_no_command() -> None:
    page = 'console.log("export URL=$(heroku config:get -a $APP URL)");'
    assert exports(page) == ["export URL=$(heroku config:get -a $APP URL)"]
    assert commands(page) == []
