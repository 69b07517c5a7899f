"""The address of a database: a path or a URL becomes one of the two products that are known, without surprises."""

from pathlib import Path

from sqlalchemy import URL, exc, make_url

from penstock.store.errors import StoreError

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_KNOWN = "write sqlite:////data/penstock.db or postgresql://user:password@host/database"
_RELATIVE = (
    "database.url: a relative path means another file in every folder; write the whole path, in a URL after four "
    "slashes: sqlite:////data/penstock.db"
)


def parse_address(url_or_path: str | Path) -> URL:
    """The URL with the driver in use. Raises StoreError, which shows no part of a URL."""
    if not isinstance(url_or_path, str) or "://" not in url_or_path:
        if isinstance(url_or_path, str) and not Path(url_or_path).is_absolute():
            raise StoreError(_RELATIVE)
        return URL.create("sqlite", database=str(Path(url_or_path).absolute()))
    try:
        url = make_url(url_or_path)
    except (exc.ArgumentError, ValueError):
        raise StoreError(f"database.url: not a database URL; {_KNOWN}") from None
    if url.drivername not in _DRIVERS:
        raise StoreError(f"database.url: {url.drivername}:// is not supported; {_KNOWN}")
    url = url.set(drivername=_DRIVERS[url.drivername])
    if is_sqlite(url) and url.database in (None, "", ":memory:"):
        raise StoreError("database.url: name a file; a database in memory cannot be shared by several processes")
    if is_sqlite(url) and not Path(str(url.database)).is_absolute():
        raise StoreError(_RELATIVE)
    return url


def is_sqlite(url: URL) -> bool:
    """Whether it is a SQLite file."""
    return url.get_backend_name() == "sqlite"


def holds_password(url: str) -> bool:
    """Whether the password stands in a URL. Raises StoreError, as ``parse_address`` does."""
    parsed = parse_address(url)
    return bool(parsed.password or "password" in parsed.query)


def label_of(url: URL) -> str:
    """The name of the database for messages: the file, or the URL without user, password and options."""
    if is_sqlite(url):
        return str(url.database)
    host, port = url.host or url.query.get("host"), str(url.query.get("port"))
    bare = URL.create("postgresql", port=url.port or (int(port) if port.isdecimal() else None), database=url.database)
    return str(bare.set(host=host if isinstance(host, str) else None))
