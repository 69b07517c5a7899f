"""Names: what Heroku allows for apps, add-ons, attachments and config vars, and random ones where none is given."""

import re
import secrets
from collections.abc import Callable, Container, Iterator

from penstock.domain.access import Role
from penstock.web.api import ApiError

APP_NAME = re.compile(r"[a-z][a-z0-9-]{1,28}[a-z0-9]")
ADDON_NAME = re.compile(r"[a-z][a-z0-9-]{1,62}[a-z0-9]")
ALIAS = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
REGIONS = ("us", "eu")
VAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")
# No quoted forms, and nothing that a path of a URL would have to escape: the Heroku CLI does not.
EMAIL = re.compile(
    r"(?=[^@]{1,64}@)[A-Za-z0-9_+'=&~-]+(?:\.[A-Za-z0-9_+'=&~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]*[A-Za-z0-9])*"
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_MODIFIERS = tuple(
    """
    agile amber ancient autumn billowing bold brisk calm clear cool crisp curved damp dawn deep distant dry eager
    early evening fast floating fragrant frosty gentle glacial golden hidden humble icy immense keen lively long
    misty morning mossy nimble noble patient placid polished proud quiet rapid rising rocky salty serene shaped
    shining silent sleepy smooth snowy solid sparkling spring still stormy summer swift tidy tranquil vast velvet
    vivid warm wandering weathered wild winding winter young
    """.split()  # noqa: SIM905 - a hundred quoted words read worse
)
_NOUNS = tuple(
    """
    basin bay beach bluff brook canal canyon cascade cliff cloud coast cove creek delta dune eddy fall field fjord
    flume ford forest garden geyser glacier glade gorge harbor hill inlet island lagoon lake lock meadow mill mist
    mountain oasis ocean peak pond pool rain rapid reef ridge river sea shore sluice spring stream summit surf
    thunder tide valley water waterfall weir well wharf wind wood
    """.split()  # noqa: SIM905 - a hundred quoted words read worse
)
# The order is ours; the names are those that Heroku appends to a taken default (heroku-wire.md section 1).
COLOURS = tuple(
    """
    PINK CYAN MAROON JADE AMBER AQUA BLACK BLUE BRONZE BROWN CHARCOAL COBALT COPPER CRIMSON GOLD GRAY GREEN IVORY
    MAUVE NAVY OLIVE ONYX ORANGE PUCE PURPLE RED ROSE SILVER TEAL VIOLET WHITE YELLOW
    """.split()  # noqa: SIM905 - a hundred quoted words read worse
)


def invalid(message: str) -> ApiError:
    """A 422 in Heroku's shape; the message names the field."""
    return ApiError(422, "invalid_params", message)


def check_app_name(name: str) -> str:
    """The name, or a 422 with Heroku's words."""
    if len(name) < 3:
        raise invalid("Name is too short (minimum is 3 characters)")
    if len(name) > 30:
        raise invalid("Name is too long (maximum is 30 characters)")
    if not APP_NAME.fullmatch(name):
        raise invalid(
            "Name must start with a letter, end with a letter or digit "
            "and can only contain lowercase letters, digits, and dashes."
        )
    return name


def is_id(text: str) -> bool:
    """Whether it has the form of an id, which no name of an app or add-on may have."""
    return _UUID.fullmatch(text) is not None


def check_addon_name(name: str) -> str:
    """The name of an add-on, or a 422. A UUID is refused, because a path could then mean two add-ons."""
    if not ADDON_NAME.fullmatch(name) or _UUID.fullmatch(name):
        raise invalid(
            "Name of the add-on must start with a letter, end with a letter or digit, have 3 to 64 characters "
            "and can only contain lowercase letters, digits, and dashes."
        )
    return name


def check_alias(name: str) -> str:
    """The attachment name in upper case, or a 422. The plugin looks for the words ``start with a letter``."""
    alias = name.upper() if name.isascii() else name
    if not ALIAS.fullmatch(alias):
        raise invalid(
            "Name of the attachment must start with a letter, have at most 64 characters "
            "and can only contain letters, digits, and underscores."
        )
    return alias


def check_var_name(name: str) -> str:
    """The name of a config var, or a 422."""
    if not VAR_NAME.fullmatch(name):
        raise invalid(
            f"Config var name {name[:80]!r} must start with a letter or underscore, have at most 256 characters "
            "and can only contain letters, digits, underscores, dots, and dashes."
        )
    return name


def is_email(text: str) -> bool:
    """Whether an operator can have it as an email address."""
    return len(text) <= 254 and EMAIL.fullmatch(text) is not None


def check_email(email: str, field: str) -> str:
    """The email address in lower case, or a 422 that names the field."""
    if not is_email(email):
        raise invalid(f"{field} must be an email address such as ann@example.com.")
    return email.lower()


def check_role(role: str | None, *allowed: Role) -> Role | None:
    """One of the roles, or a 422 that lists them; None stays None."""
    if role is None:
        return None
    if role not in allowed:
        raise invalid(f"role must be one of {', '.join(allowed)}.")
    return Role(role)


def random_app_name() -> str:
    """Such as serene-river-12345."""
    return f"{secrets.choice(_MODIFIERS)}-{secrets.choice(_NOUNS)}-{_five_digits()}"


def random_addon_name() -> str:
    """Such as inference-shaped-00001."""
    return f"inference-{secrets.choice(_MODIFIERS)}-{_five_digits()}"


def free_name(generate: Callable[[], str], *, taken: Callable[[str], bool]) -> str:
    """A generated name that is not taken."""
    for _ in range(1000):
        name = generate()
        if not taken(name):
            return name
    raise RuntimeError("every name that was tried is taken")


def default_aliases(first: str) -> Iterator[str]:
    """``first``, then with a colour, then with a colour and a number, without end."""
    yield first
    number = 1
    while True:
        suffix = "" if number == 1 else f"_{number}"
        yield from (f"{first}_{colour}{suffix}" for colour in COLOURS)
        number += 1


def first_free_alias(first: str, *, taken: Callable[[str], bool]) -> str:
    """The first default alias that is not taken."""
    return next(alias for alias in default_aliases(first) if not taken(alias))


def variable_names(alias: str, *, model_plan: bool) -> tuple[str, ...]:
    """The config vars that an attachment brings (heroku-wire.md section 1)."""
    names = (f"{alias}_URL", f"{alias}_KEY")
    return (*names, f"{alias}_MODEL_ID") if model_plan else names


def check_region(region: str, field: str) -> str:
    """The region itself, or a 422 that names the field."""
    if region not in REGIONS:
        raise invalid(f"{field} must be one of {', '.join(REGIONS)}.")
    return region


def clashing(alias: str, variables: Container[str], *, model_plan: bool) -> str | None:
    """The first config var of the attachment that is set already, or None."""
    return next((name for name in variable_names(alias, model_plan=model_plan) if name in variables), None)


def _five_digits() -> str:
    return f"{secrets.randbelow(100_000):05d}"
