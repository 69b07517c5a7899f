"""Signatures: ours and botocore's are the same bytes."""

import datetime
from unittest import mock

import botocore.auth
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.bedrock.sign import Keys, Signer

HOST = "bedrock-runtime.eu-central-1.amazonaws.com"
_visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
_keys = st.builds(Keys, _visible, _visible, st.none() | _visible)
# What stands in a path: percent-encoded ids of models, ARNs among them.
_path = st.from_regex(r"/model/([A-Za-z0-9._~-]|%3A|%2F|%20|%C3%A4){1,60}/converse(-stream)?", fullmatch=True)
_moment = st.integers(min_value=1_500_000_000, max_value=4_000_000_000)


def by_botocore(keys: Keys, host: str, path: str, body: bytes, now: int) -> dict[str, str]:
    """The headers that botocore's signer adds at that moment."""
    request = AWSRequest("POST", f"https://{host}{path}", headers={"content-type": "application/json"}, data=body)
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        SigV4Auth(Credentials(*keys), "bedrock", "eu-central-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(_keys, _path, st.binary(max_size=200), _moment, st.sampled_from(["", "/base", "/a%20b"]))
def test_our_signature_is_botocores_byte_for_byte(keys: Keys, path: str, body: bytes, now: int, base: str) -> None:
    signer = Signer(region="eu-central-1", host=HOST, base_path=base)
    assert dict(signer.headers(keys, path, body, now=now)) == by_botocore(keys, HOST, base + path, body, now)


def test_a_signer_that_has_signed_for_other_keys_and_days_signs_as_a_new_one_does() -> None:
    used = Signer(region="eu-central-1", host=HOST)
    for keys in (Keys("AKID", "one"), Keys("AKID", "two"), Keys("AKID", "one")):
        for now in (1_700_000_000, 1_800_000_000, 1_700_000_000):
            fresh = Signer(region="eu-central-1", host=HOST)
            assert used.headers(keys, "/model/m/converse", b"x", now=now) == fresh.headers(
                keys, "/model/m/converse", b"x", now=now
            )


def test_a_port_is_part_of_the_signed_host() -> None:
    keys, now = Keys("AKID", "secret"), 1_700_000_000
    signer = Signer(region="eu-central-1", host="127.0.0.1:8443")
    headers = dict(signer.headers(keys, "/model/m/converse", b"{}", now=now))
    assert headers == by_botocore(keys, "127.0.0.1:8443", "/model/m/converse", b"{}", now)


def test_keys_show_no_secret() -> None:
    assert repr(Keys("AKIDEXAMPLE", "very-secret", "token")) == "Keys(********)"
