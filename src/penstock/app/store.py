"""Which store the settings name, whether it is the one of the home's last server, and opening it."""

from pathlib import Path

from penstock.app.home import DATABASE
from penstock.settings.tree import Settings
from penstock.store.database import Database
from penstock.store.engines.address import is_sqlite, label_of, parse_address
from penstock.store.errors import StoreError
from penstock.store.sealing import MasterKeys, parse_master_key


def database_url(settings: Settings) -> str | Path:
    """Where the store lives."""
    return settings.database.url or Path(settings.home) / "penstock.db"


def database_label(settings: Settings) -> str:
    """The name of the store for messages, without its password. Raises StoreError."""
    return label_of(parse_address(database_url(settings)))


def database_name(settings: Settings) -> str:
    """The store's name in the home's file: relative to the home where it lies in it, so that both can be moved, and
    with the port. Raises StoreError."""
    url, home = parse_address(database_url(settings)), Path(settings.home).resolve()
    if not is_sqlite(url):
        return label_of(url if url.port or "port" in url.query else url.set(port=5432))
    path = Path(str(url.database)).resolve()
    return str(path.relative_to(home) if path.is_relative_to(home) else path)


def other_database(settings: Settings) -> str | None:
    """One line when the last server of this home used another database than the settings name; None when it was the
    same, or there was none. Raises StoreError, OSError."""
    try:
        served = (Path(settings.home) / DATABASE).read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    if served in ("", database_name(settings)):
        return None
    served = served if "://" in served else str(Path(settings.home) / served)
    return f"the server of this home uses {served}, and the settings here name {database_label(settings)}"


def refuse_other_database(settings: Settings) -> None:
    """Raises StoreError where ``other_database`` has something to say, with the remedy."""
    if other := other_database(settings):
        raise StoreError(
            f"{other}: set PENSTOCK_DATABASE_URL, or [database] url, as the server has it; where no server runs, "
            "starting penstock serve once with the settings here makes theirs the one"
        )


def open_database(settings: Settings, *, upkeep: bool = False) -> Database:
    """The store, open and migrated or, for ``upkeep``, as it is, with the master keys that the settings name. Raises
    StoreError."""
    return Database.open(database_url(settings), master_keys=master_keys(settings), upkeep=upkeep)


def master_keys(settings: Settings) -> MasterKeys:
    """Where the settings say that the master keys are. Raises StoreError."""
    given = settings.secrets
    if given.master_key is None:
        if given.old_master_key is not None:
            raise StoreError("secrets.old_master_key needs secrets.master_key; in a file, put it on the second line")
        return MasterKeys(Path(given.master_key_file or Path(settings.home) / "master.key").expanduser().absolute())
    if given.master_key_file is not None:
        raise StoreError("secrets.master_key and secrets.master_key_file are both set; keep one")
    texts = {"secrets.master_key": given.master_key, "secrets.old_master_key": given.old_master_key}
    return MasterKeys(given=tuple(parse_master_key(text, name) for name, text in texts.items() if text is not None))
