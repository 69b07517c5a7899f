"""What the store raises besides domain.errors.PenstockError("store_unavailable")."""


class StoreError(Exception):
    """The store cannot be opened or its master key does not fit; the message is one line with the remedy."""


class NotFoundError(Exception):
    """No such object. ``noun`` is the store's noun: app, addon, attachment, operator."""

    def __init__(self, noun: str) -> None:
        super().__init__(f"no such {noun}")
        self.noun = noun


class NameTakenError(Exception):
    """The name is in use by another object of the noun."""

    def __init__(self, noun: str, name: str) -> None:
        super().__init__(f"{noun} name {name} is taken")
        self.noun = noun
        self.name = name
