"""All noun stores over one database."""

from penstock.store.database import Database
from penstock.store.keeping.contents import ContentStore
from penstock.store.metering.budgets import BudgetStore
from penstock.store.metering.governance import GovernanceStore
from penstock.store.metering.limits import LimitStore
from penstock.store.metering.policies import PolicyStore
from penstock.store.nouns.addons import AddOnStore
from penstock.store.nouns.apps import AppStore
from penstock.store.nouns.attachments import AttachmentStore
from penstock.store.nouns.audit import AuditStore
from penstock.store.nouns.collaborators import CollaboratorStore
from penstock.store.nouns.config_vars import ConfigVarStore
from penstock.store.nouns.credentials import CredentialStore
from penstock.store.nouns.idempotency import IdempotencyStore
from penstock.store.nouns.keys import KeyStore
from penstock.store.nouns.operators import OperatorStore
from penstock.store.nouns.releases import ReleaseStore


class Stores:
    """The nouns, side by side; ``db.write()`` makes several of their changes one transaction."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.apps = AppStore(db)
        self.addons = AddOnStore(db)
        self.attachments = AttachmentStore(db)
        self.keys = KeyStore(db)
        self.config_vars = ConfigVarStore(db)
        self.credentials = CredentialStore(db)
        self.releases = ReleaseStore(db)
        self.operators = OperatorStore(db)
        self.collaborators = CollaboratorStore(db)
        self.audit = AuditStore(db)
        self.idempotency = IdempotencyStore(db)
        self.limits = LimitStore(db)
        self.budgets = BudgetStore(db, audit=self.audit.add)
        self.governance = GovernanceStore(db)
        self.policies = PolicyStore(db)
        self.contents = ContentStore(db)
