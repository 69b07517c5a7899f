"""Prepares the store before anything serves."""

from penstock.app.banner import Hello
from penstock.app.home import Home
from penstock.app.store import database_name, open_database
from penstock.control import bootstrap
from penstock.settings.tree import Settings


def prepare_store(settings: Settings) -> Hello | None:
    """Migrate the database, make the operator's token, and on the very first start the app ``hello``; note in the home
    which database it is. Raises StoreError, HomeError.
    """
    home = Home(settings.home)
    db = open_database(settings)
    try:
        bootstrap.ensure_operator(db, home.path, settings.control.operator_email)
        made = bootstrap.ensure_hello(db, email=settings.control.operator_email)
    finally:
        db.close()
    home.note_database(database_name(settings))
    return None if made is None else Hello(app=bootstrap.HELLO, key=made.secret)
