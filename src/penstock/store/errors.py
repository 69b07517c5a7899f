"""What the store raises besides domain.errors.PenstockError("store_unavailable")."""

from penstock.domain.errors import PenstockError


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


class RetryableError(PenstockError):
    """A transaction lost against another one and was rolled back; Database.retrying runs it again. A client that gets
    to see it may try again too: it is a 503 store_unavailable."""

    def __init__(self) -> None:
        message = "Others changed the same objects at the same moment. Try again."
        super().__init__("store_unavailable", message, retry_after_s=1)


class InvalidValueError(Exception):
    """A value that no database keeps: longer than its column, or with a NUL or half a character in it. The message is
    for the client and does not repeat the value."""

    def __init__(self, name: str, length: int | None = None) -> None:
        bound = f" (at most {length} characters)" if length else ""
        super().__init__(f"{name} is too long{bound} or has characters that cannot be stored.")
