"""The changes to operators, their tokens and who shares an app: each one transaction with its audit event.

Roles are read again inside the transaction, so that what a caller has lost meanwhile does not count any more."""

from datetime import UTC, datetime
from typing import Any

from penstock.control.guard import Guard, forbidden, may_manage
from penstock.control.names import invalid
from penstock.control.trail import Subject, record
from penstock.domain.access import Permission, Role
from penstock.domain.ids import new_operator_token, secret_hash
from penstock.domain.platform import Actor, App, Collaborator, Operator, OperatorToken
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError


class OperatorChanges:
    """All raise ApiError forbidden where the caller may not, and NotFoundError when an object went away meanwhile."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._guard = Guard(stores)

    def add(self, email: str, *, role: Role, by: Actor) -> Operator:
        """A new operator, who has no token yet. Raises NameTakenError."""
        stores = self._stores
        with stores.db.write():
            self._may(by, stores.operators.lock(by.id), role)
            made = stores.operators.add(email, role=role)
            record(stores, by, "operator.create", subject=_subject(made), after=_shown(made))
            return made

    def update(self, ref: str, *, email: str | None, role: Role | None, by: Actor) -> Operator:
        """Another email or role. Raises NameTakenError, and ApiError for the last owner."""
        stores = self._stores
        with stores.db.write():
            people = stores.operators.lock(by.id, ref)
            before = _present(people, ref)
            self._may(by, people, before.role, role or before.role)
            if role not in (None, Role.OWNER):
                _keep_an_owner(people, before)
            stores.operators.update(before.id, email=email, role=role)
            after = stores.operators.get(before.id)
            record(stores, by, "operator.update", subject=_subject(after), before=_shown(before), after=_shown(after))
            return after

    def remove(self, ref: str, *, by: Actor) -> Operator:
        """The operator is gone, with all tokens; their apps are the caller's. Raises ApiError for oneself."""
        stores = self._stores
        with stores.db.write():
            people = stores.operators.lock(by.id, ref)
            gone = _present(people, ref)
            heir = self._may(by, people, gone.role)
            _keep_an_owner(people, gone)
            if gone.id == heir.id:
                raise invalid("operator: you cannot remove yourself; another owner or admin can.")
            tokens = [token.prefix for token in stores.operators.list_tokens(gone.id)]
            for app in stores.apps.list(visible_to=gone.id):
                if inherited := app.owner_id == gone.id:
                    self._tell_of_new_owner(app, heir, by=by)
                self._tell_of_end(stores.collaborators.find(app.id, (heir if inherited else gone).id), app, by=by)
            stores.operators.remove(gone.id, heir=heir)
            before = {**_shown(gone), "tokens": tokens}
            record(stores, by, "operator.destroy", subject=_subject(gone), before=before)
            return gone

    def mint(
        self, ref: str, *, description: str, expires_at: datetime | None, by: Actor, sign_in: bool = False
    ) -> tuple[OperatorToken, str]:
        """A new token of an operator and its secret, which is kept nowhere."""
        stores, secret = self._stores, new_operator_token()
        with stores.db.write():
            owner = self._self_or_managed(ref, by=by)
            made = stores.operators.add_token(
                owner.id, secret_hash(secret), prefix=secret, description=description, expires_at=expires_at
            )
            if sign_in:
                record(stores, by, "operator.sign_in", subject=_subject(owner), after={"token": made.prefix})
            subject = Subject(made.id, made.prefix)
            record(stores, by, "token.create", subject=subject, after=_shown_token(made, owner))
            return made, secret

    def revoke(self, ref: str, token_id: str, *, by: Actor) -> OperatorToken:
        """Ends one token of an operator."""
        stores = self._stores
        with stores.db.write():
            owner = self._self_or_managed(ref, by=by)
            gone = stores.operators.find_token(token_id)
            if gone is None or gone.operator_id != owner.id:
                raise NotFoundError("token")
            stores.operators.remove_token(gone.id)
            subject = Subject(gone.id, gone.prefix)
            record(stores, by, "token.destroy", subject=subject, before=_shown_token(gone, owner))
            return gone

    def share(self, app: App, ref: str, *, role: Role, by: Actor, new: bool) -> Collaborator:
        """Gives an operator a role on an app: as a ``new`` collaborator, or another role than before."""
        stores = self._stores
        with stores.db.write():
            # Operators before apps, as where operators are removed: two that wait for each other would both fail.
            guest = _present(stores.operators.lock(ref, by.id), ref)
            self._guard.begin(by, Permission.APP_SHARE, app.id)
            before = stores.collaborators.find(app.id, guest.id)
            if guest.id == stores.apps.get(app.id).owner_id:
                raise invalid(f"user: {guest.email} is the owner of {app.name}.")
            if new and before is not None:
                raise invalid(f"user: {guest.email} is already a collaborator on {app.name}, as {before.role}.")
            if not new and before is None:
                raise NotFoundError("collaborator")
            made = stores.collaborators.put(app.id, guest.id, role=role)
            was = None if before is None else {"role": before.role.value}
            action = "collaborator.create" if new else "collaborator.update"
            subject = Subject(made.id, guest.email, app)
            record(stores, by, action, subject=subject, before=was, after={"role": role.value})
            return made

    def unshare(self, collaborator: Collaborator, app: App, *, by: Actor) -> None:
        """Ends a collaboration."""
        stores = self._stores
        with stores.db.write():
            if collaborator.operator_id == by.id:
                stores.apps.update(app.id, updated_at=datetime.now(UTC))
            else:
                self._guard.begin(by, Permission.APP_SHARE, app.id)
            stores.collaborators.remove(app.id, collaborator.operator_id)
            self._tell_of_end(collaborator, app, by=by)

    def transfer(self, app: App, ref: str, *, by: Actor) -> App:
        """Another operator becomes the app's owner; the one before stays as a collaborator, a member."""
        stores = self._stores
        with stores.db.write():
            people = stores.operators.lock(ref, app.owner_id, by.id)
            self._guard.begin(by, Permission.APP_DESTROY, app.id)
            before = stores.apps.get(app.id)
            heir = _present(people, ref)
            if heir.id == before.owner_id:
                return before
            self._tell_of_new_owner(before, heir, by=by)
            if (ended := stores.collaborators.find(app.id, heir.id)) is not None:
                stores.collaborators.remove(app.id, heir.id)
                self._tell_of_end(ended, before, by=by)
            if before.owner_id in people:
                made = stores.collaborators.put(app.id, str(before.owner_id), role=Role.MEMBER)
                subject, after = Subject(made.id, made.email, before), {"role": made.role.value}
                record(stores, by, "collaborator.create", subject=subject, after=after)
            stores.apps.pass_on(app.id, heir)
            return stores.apps.get(app.id)

    def _tell_of_new_owner(self, app: App, heir: Operator, *, by: Actor) -> None:
        before, after = {"owner": app.owner_email}, {"owner": heir.email}
        record(self._stores, by, "app.update", subject=Subject(app.id, app.name, app), before=before, after=after)

    def _tell_of_end(self, ended: Collaborator | None, app: App, *, by: Actor) -> None:
        if ended is not None:
            subject, before = Subject(ended.id, ended.email, app), {"role": ended.role.value}
            record(self._stores, by, "collaborator.destroy", subject=subject, before=before)

    def _self_or_managed(self, ref: str, *, by: Actor) -> Operator:
        people = self._stores.operators.lock(by.id, ref)
        owner = _present(people, ref)
        if owner.id != by.id:
            self._may(by, people, owner.role)
        return owner

    def _may(self, by: Actor, people: dict[str, Operator], *roles: Role) -> Operator:
        caller = people.get(by.id or "")
        if caller is None:
            raise ApiError(401, "unauthorized", "You are no longer an operator.")
        if not may_manage(caller, *roles):
            raise forbidden("Only an owner makes, changes or removes owners and admins, and an admin the others.")
        return caller


def _present(people: dict[str, Operator], ref: str) -> Operator:
    if ref not in people:
        raise NotFoundError("operator")
    return people[ref]


def _keep_an_owner(people: dict[str, Operator], leaving: Operator) -> None:
    others = [one for one in people.values() if one.role is Role.OWNER and one.id != leaving.id]
    if leaving.role is Role.OWNER and not others:
        raise invalid(f"{leaving.email} is the last owner. Make another operator an owner first.")


def _subject(operator: Operator) -> Subject:
    return Subject(operator.id, operator.email)


def _shown(operator: Operator) -> dict[str, Any]:
    return {"email": operator.email, "role": operator.role.value}


def _shown_token(token: OperatorToken, owner: Operator) -> dict[str, Any]:
    expires_at = None if token.expires_at is None else token.expires_at.isoformat(timespec="seconds")
    return {"operator": owner.email, "description": token.description, "expires_at": expires_at}
