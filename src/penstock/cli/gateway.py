"""The data plane as the CLI calls it: JSON calls, and a chat whose answer arrives in pieces."""

from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from penstock.cli.client import error_body, open_http, unreachable
from penstock.cli.output import CliError
from penstock.providers.sse import SseParser

_ANSWER = httpx.Timeout(600.0, connect=5.0)


class Gateway:
    """A connection to one INFERENCE_URL with one key (None for the public routes)."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = open_http(self.url)
        if key:
            self._http.headers["Authorization"] = f"Bearer {key}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """GET a JSON value. Raises CliError with the server's message."""
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST a JSON object, wait for the whole answer. Raises CliError with the server's message."""
        return self._call("POST", path, body)

    def stream(self, body: dict[str, Any]) -> Generator[str, None, None]:
        """The answer's text as it arrives. Closing the iterator hangs up, which frees the engine's slot.

        Raises CliError with the server's message, also for an error event in the middle or a lost connection.
        """
        asked = {**body, "stream": True}
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=asked, timeout=_ANSWER) as response:
                if not response.is_success:
                    response.read()
                    raise _refusal(response)
                yield from _pieces(response)
        except httpx.HTTPError as error:
            raise unreachable(error, self.url) from error

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            response = self._http.request(method, path, json=body, timeout=_ANSWER)
        except httpx.HTTPError as error:
            raise unreachable(error, self.url) from error
        if not response.is_success:
            raise _refusal(response)
        try:
            return response.json()
        except ValueError as error:
            raise CliError(f"{self.url}{path} answered something else than JSON.") from error


def _pieces(response: httpx.Response) -> Iterator[str]:
    parser = SseParser()
    for block in response.iter_bytes():
        for payload in parser.feed(block):
            if payload.strip() == b"[DONE]":
                return
            event = msgspec.json.decode(payload)
            if "error" in event:
                raise CliError(_message(event) or "The answer was cut off.")
            for choice in event.get("choices", [])[:1]:
                if text := choice.get("delta", {}).get("content"):
                    yield text
    raise CliError("The answer was cut off: the connection ended early.")


def _refusal(response: httpx.Response) -> CliError:
    found = _message(error_body(response))
    return CliError(found or f"{response.request.method} {response.request.url}: HTTP {response.status_code}")


def _message(body: dict[str, Any]) -> str | None:
    error = body.get("error")
    nested = error.get("message") if isinstance(error, dict) else error
    found = body.get("message") or nested
    return str(found) if found else None
