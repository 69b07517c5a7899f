"""What revokes a key is answered only when a worker that follows the keys by a poll refuses it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.domain.ids import secret_hash
from penstock.store.database import Database
from penstock.store.nouns.stores import Stores
from tests.control.plane import Plane, running_plane

POLL_S = 0.1
REVOCATION_S = 1.0


class Follower:
    """A stand-in for a gateway worker: looks a key up every ``POLL_S`` and goes by what it saw last."""

    def __init__(self, stores: Stores, key: str) -> None:
        self._stores = stores
        self._hash = secret_hash(key)
        self._ended = threading.Event()
        self.takes_the_key = True

    def follow(self) -> None:
        """Poll until ended; the first look comes a poll after the start, as a worker's does after a change."""
        while not self._ended.wait(POLL_S):
            self.takes_the_key = self._stores.keys.find_principal(self._hash) is not None

    def end(self) -> None:
        """Stop polling."""
        self._ended.set()


@contextlib.contextmanager
def following(home: Path, key: str) -> Iterator[Follower]:
    """A running follower of one key, with a database connection of its own."""
    db = Database.open(home / "penstock.db")
    follower = Follower(Stores(db), key)
    thread = threading.Thread(target=follower.follow)
    thread.start()
    try:
        yield follower
    finally:
        follower.end()
        thread.join()
        db.close()


def detach(plane: Plane, app: str, addon: dict[str, Any]) -> None:
    """DELETE of the attachment."""
    [attached] = plane.ok("GET", f"/addons/{addon['id']}/addon-attachments")
    plane.ok("DELETE", f"/addon-attachments/{attached['id']}")


def destroy(plane: Plane, app: str, addon: dict[str, Any]) -> None:
    """DELETE of the add-on."""
    plane.ok("DELETE", f"/apps/{app}/addons/{addon['id']}", force=True)


def destroy_app(plane: Plane, app: str, addon: dict[str, Any]) -> None:
    """DELETE of the app."""
    plane.ok("DELETE", f"/apps/{app}")


@pytest.mark.parametrize("revoke", [detach, destroy, destroy_app])
def test_the_reply_comes_when_a_polling_worker_refuses_the_key(
    tmp_path: Path, revoke: Callable[[Plane, str, dict[str, Any]], None]
) -> None:
    with running_plane(tmp_path, revocation_s=REVOCATION_S) as plane:
        app = plane.app()
        addon = plane.addon(app)
        with following(tmp_path, plane.config(app)["INFERENCE_KEY"]) as follower:
            revoke(plane, app, addon)
            assert not follower.takes_the_key
