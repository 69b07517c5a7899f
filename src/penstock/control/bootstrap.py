"""The first start: the operator's token on disk, and an app to try things with."""

import logging
from pathlib import Path

from penstock.control.changes import AddOnOrder, Changes
from penstock.control.plans import Plan
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
    operators, digest = Stores(db).operators, secret_hash(token)
    with db.write():
        known = operators.find_by_token(digest)
        if known is None:
            owner = operators.find(email) or operators.add(email, role=Role.OWNER)
            operators.add_token(owner.id, digest, prefix=token, description="HOME/tokens/operator")
        elif known[0].email != email and operators.find(email) is None:
            operators.update(known[0].id, email=email)
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
        first_start = Actor(id=owner.id if owner else None, email=email, source="local", request_id="first start")
        app = changes.create_app(HELLO, by=first_start)
        _, attachment = changes.provision(app, AddOnOrder(plan=Plan(slug=STANDARD_PLAN)), by=first_start)
        return stores.keys.list(attachment_id=attachment.id)[0]
