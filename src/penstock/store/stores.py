"""All noun stores over one database."""

from penstock.store.addons import AddOnStore
from penstock.store.apps import AppStore
from penstock.store.attachments import AttachmentStore
from penstock.store.config_vars import ConfigVarStore
from penstock.store.database import Database
from penstock.store.keys import KeyStore
from penstock.store.operators import OperatorStore
from penstock.store.releases import ReleaseStore


class Stores:
    """The nouns, side by side; ``db.write()`` makes several of their changes one transaction."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.apps = AppStore(db)
        self.addons = AddOnStore(db)
        self.attachments = AttachmentStore(db)
        self.keys = KeyStore(db)
        self.config_vars = ConfigVarStore(db)
        self.releases = ReleaseStore(db)
        self.operators = OperatorStore(db)
