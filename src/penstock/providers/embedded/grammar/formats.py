"""The formats of JSON Schema that are enforced, as regular expressions whose every match is valid."""

# Days end at 28 and seconds at 59, so that no month or minute can be too short.
_DATE = r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LABEL = r"[a-z0-9]([a-z0-9]{0,14}[a-z0-9])?"
_HEX = "[0-9a-f]"

FORMATS: dict[str, str] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}Z$",
    "date-time": f"^{_DATE}T{_TIME}Z$",
    "duration": r"^P([1-9][0-9]{0,2}D|T[1-9][0-9]{0,2}[HMS])$",
    "uuid": f"^{_HEX}{{8}}-{_HEX}{{4}}-4{_HEX}{{3}}-[89ab]{_HEX}{{3}}-{_HEX}{{12}}$",
    "email": rf"^[a-z][a-z0-9]{{0,19}}(\.[a-z0-9]{{1,15}})?@{_LABEL}\.[a-z]{{2,6}}$",
    "hostname": rf"^{_LABEL}(\.{_LABEL}){{0,2}}\.[a-z]{{2,6}}$",
    "ipv4": rf"^{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}$",
    "ipv6": f"^{_HEX}{{1,4}}(:{_HEX}{{1,4}}){{7}}$",
    "uri": rf"^https?://{_LABEL}(\.{_LABEL}){{0,2}}\.[a-z]{{2,6}}(/[A-Za-z0-9._-]{{1,24}}){{0,4}}/?$",
}
