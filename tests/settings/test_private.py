"""What is written into the home is private to the user, whatever the umask."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.app.home import Home
from penstock.cli.whereabouts import save_login
from penstock.settings.private import create_private, private_folder, write_private
from penstock.settings.tree import Settings
from penstock.store.database import Database


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """Paths under a folder that others may read, write or enter."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077]


def test_every_folder_on_the_way_is_made_private_and_one_that_is_there_stays(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    assert private_folder(there / "a" / "b") == there / "a" / "b"
    private_folder(there / "a" / "b")
    assert open_to_others(there) == []
    assert stat.S_IMODE(there.stat().st_mode) == 0o755


def test_a_file_is_replaced_whole_and_no_link_is_followed(tmp_path: Path) -> None:
    aside, path = tmp_path / "aside", tmp_path / "home" / "file"
    aside.write_text("as it was")
    aside.chmod(0o600)
    private_folder(path.parent)
    path.symlink_to(aside)
    write_private(path, "new")
    assert (path.read_text(), path.is_symlink(), aside.read_text()) == ("new", False, "as it was")
    (path.parent / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        create_private(path.parent / "link", "x")
    assert {entry.name for entry in path.parent.iterdir()} == {"file", "link"}


def test_home_ready_file_database_and_saved_logins_are_private(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "deep" / "home"))
    home.prepare()
    home.announce({"control": "x"}, None)
    database = Database.open(tmp_path / "other" / "home" / "penstock.db")
    _ = database.sealer
    database.close()
    settings = Settings(home=str(tmp_path / "third" / "home"))
    save_login(settings, "http://127.0.0.1:1", "secret")
    assert (home.run / "ready.json").exists()
    assert (tmp_path / "third" / "home" / "tokens" / "logins.json").exists()
    assert open_to_others(tmp_path) == []
