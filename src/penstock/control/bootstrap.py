"""The first start: the operator's token on disk, and an app to try things with."""

import logging
from pathlib import Path

from penstock.control.changes import AddOnOrder, Changes
from penstock.control.plans import Plan
from penstock.control.trail import Subject, record
from penstock.domain.access import Role
from penstock.domain.ids import new_operator_token, secret_hash
from penstock.domain.platform import STANDARD_PLAN, Actor
from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.nouns.keys import ApiKeySecret
from penstock.store.nouns.stores import Stores
from penstock.store.sealing import write_private_once

logger = logging.getLogger(__name__)

HELLO = "hello"


def ensure_operator(db: Database, home: Path, email: str) -> str:
    """The operator token in HOME/tokens/operator (mode 0600), made when missing and known to the database in any case.
    Raises StoreError when the file cannot be made or read."""
    path = Path(home) / "tokens" / "operator"
    try:
        write_private_once(path, new_operator_token() + "\n") if not path.exists() else None
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: the operator token cannot be kept there: {error}") from error
    if not token:
        raise StoreError(f"{path}: empty; delete it and start again for a new token")
    stores, digest = Stores(db), secret_hash(token)
    with db.write():
        known = stores.operators.find_by_token(digest)
        if known is None:
            _make_known(stores, email, token)
        elif known[0].email != email and stores.operators.find(email) is None:
            stores.operators.update(known[0].id, email=email)
            subject, before = Subject(known[0].id, email), {"email": known[0].email}
            record(
                stores, _a_start(None, email), "operator.update", subject=subject, before=before, after={"email": email}
            )
    return token


def ensure_hello(db: Database, email: str) -> ApiKeySecret | None:
    """On the very first start, an app ``hello`` with the standard plan attached as INFERENCE: its key. None on every
    later one, also when the app has been destroyed since."""
    stores = Stores(db)
    with db.write():
        if stores.keys.revision() > 0 or stores.apps.list():
            return None
        changes = Changes(stores)
        owner = stores.operators.find(email)
        first_start = _a_start(owner.id if owner else None, email)
        app = changes.create_app(HELLO, by=first_start)
        _, attachment = changes.provision(app, AddOnOrder(plan=Plan(slug=STANDARD_PLAN)), by=first_start)
        return stores.keys.list(attachment_id=attachment.id)[0]


def _make_known(stores: Stores, email: str, token: str) -> None:
    by, owner = _a_start(None, email), stores.operators.find(email)
    if owner is None:
        owner = stores.operators.add(email, role=Role.OWNER)
        after = {"email": email, "role": owner.role.value}
        record(stores, by, "operator.create", subject=Subject(owner.id, email), after=after)
    kept_in = "HOME/tokens/operator"
    made = stores.operators.add_token(owner.id, secret_hash(token), prefix=token, description=kept_in)
    shown = {"operator": owner.email, "description": kept_in, "expires_at": None}
    record(stores, by, "token.create", subject=Subject(made.id, made.prefix), after=shown)


def _a_start(operator_id: str | None, email: str) -> Actor:
    return Actor(id=operator_id, email=email, source="local", request_id="start")
