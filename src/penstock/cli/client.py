"""The Platform API over HTTP, as any client calls it: Heroku's headers, paging, and errors as one clear message."""

import sys
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

# httpx loads its own command line, with rich and pygments where they are installed, on every import (0.28.1, November
# 2026): a third of a second of each command. It does without when that module cannot be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx  # noqa: E402 - after the line above

from penstock import __version__  # noqa: E402
from penstock.cli import output  # noqa: E402
from penstock.cli.output import CliError  # noqa: E402
from penstock.cli.whereabouts import Whereabouts, find, is_loopback  # noqa: E402

TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_MAX_PAGES = 1000
LAST_RELEASE = {"Range": "version ..; order=desc,max=1"}


class PlatformError(CliError):
    """The Platform API refused; ``status``, and ``error_id`` and ``resource`` of the body where given."""

    def __init__(self, status: int, body: dict[str, Any], fallback: str) -> None:
        super().__init__(str(body.get("message") or fallback), error_id=body.get("id"))
        self.status = status
        self.resource: str | None = body.get("resource")


class Platform:
    """A connection to the control plane. ``where`` says which, and with whose token."""

    def __init__(self, control_url: str | None = None) -> None:
        self.where: Whereabouts = find(control_url)
        self._http = open_http(self.where.control)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, *, headers: dict[str, str] | None = None) -> Any:
        """GET one object. Raises PlatformError."""
        return _decode(self._send("GET", path, headers=headers))

    def get_all(self, path: str, *, headers: dict[str, str] | None = None) -> list[Any]:
        """GET a list, following Next-Range pages (status 206). Raises PlatformError."""
        items: list[Any] = []
        for number, page in enumerate(self.pages(path, headers=headers), 1):
            if number > _MAX_PAGES:
                raise CliError(f"{path} does not end: the server sent more than {_MAX_PAGES} pages.")
            items += page
        return items

    def pages(self, path: str, *, headers: dict[str, str] | None = None) -> Iterator[list[Any]]:
        """GET a list as ``get_all`` does, page by page, however many there are. Raises PlatformError."""
        ask = dict(headers or {})
        while True:
            response = self._send("GET", path, headers=ask)
            page = _decode(response)
            yield page if isinstance(page, list) else []
            if response.status_code != 206 or "next-range" not in response.headers:
                return
            ask["Range"] = response.headers["next-range"]

    def post(self, path: str, body: Any, *, headers: dict[str, str] | None = None) -> Any:
        """POST a JSON body. Raises PlatformError."""
        return _decode(self._send("POST", path, body=body, headers=headers))

    def patch(self, path: str, body: Any) -> Any:
        """PATCH with a JSON body. Raises PlatformError."""
        return _decode(self._send("PATCH", path, body=body))

    def put(self, path: str, body: Any) -> Any:
        """PUT a JSON body. Raises PlatformError."""
        return _decode(self._send("PUT", path, body=body))

    def delete(self, path: str, body: Any = None) -> Any:
        """DELETE, with a JSON body where the route takes one. Raises PlatformError."""
        return _decode(self._send("DELETE", path, body=body))

    def authorize(self, email: str, token: str, *, description: str, expires_in: int) -> dict[str, Any]:
        """Trade an email address, or none, and a token for an authorization that lasts so many seconds. Raises
        PlatformError."""
        body = {"description": description, "expires_in": expires_in, "scope": ["global"]}
        credentials = httpx.BasicAuth(email.encode(), token.encode())
        response = self._send("POST", "/oauth/authorizations", body=body, auth=credentials)
        found: dict[str, Any] = _decode(response)
        return found

    def last_release(self, app: str) -> str:
        """``v12``, the number of the app's last release; ``v?`` when it has none."""
        releases = self.get(f"/apps/{segment(app)}/releases", headers=LAST_RELEASE)
        return f"v{releases[0]['version']}" if releases else "v?"

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        auth: httpx.BasicAuth | None = None,
    ) -> httpx.Response:
        sent = {"Accept": "application/vnd.heroku+json; version=3", "Request-Id": str(uuid.uuid4()), **(headers or {})}
        if auth is None and self.where.token is not None:
            sent["Authorization"] = f"Bearer {self.where.token.secret}"
        content = {} if body is None else {"json": body}
        try:
            response = self._http.request(method, path, headers=sent, auth=auth, **content)
        except httpx.HTTPError as error:
            raise unreachable(error, self.where.control, guessed=self.where.guessed) from error
        for name in ("x-heroku-warning", "warning-message"):
            if name in response.headers:
                output.warn(response.headers[name])
        if response.is_success:
            return response
        if _is_gateway(response):
            raise CliError(
                f"{self.where.control} is the gateway, which answers models; the control plane has an address of its "
                "own, by default http://127.0.0.1:8401. penstock serve prints both.",
                exit_code=2,
            )
        if response.status_code == 401 and auth is None:
            raise self._refused_token(response)
        raise PlatformError(response.status_code, error_body(response), f"{method} {path}: {response.status_code}")

    def _refused_token(self, response: httpx.Response) -> PlatformError:
        url, token = self.where.control, self.where.token
        if token is None:
            text = (
                f"No token for {url}. Log in with: penstock auth:login\n"
                "On the server's own machine, the token is found by itself when PENSTOCK_HOME is the server's."
            )
        elif token.source.isupper():
            text = f"{url} refused the token from {token.source}. Correct that variable or unset it."
        else:
            text = f"{url} refused the token from {token.source}. Log in again with: penstock auth:login -i"
        return PlatformError(401, {**error_body(response), "message": text}, text)


def open_http(base: str) -> httpx.Client:
    """An HTTP client for one server. Proxies of the environment are not for this machine's own addresses."""
    agent = {"User-Agent": f"penstock-cli/{__version__}"}
    # Without TLS there is no certificate to check, and loading the list of authorities takes a tenth of a second.
    secure = base.startswith("https:")
    return httpx.Client(base_url=base, headers=agent, timeout=TIMEOUT, trust_env=not is_loopback(base), verify=secure)


def segment(name: str) -> str:
    """A name as one path segment."""
    return quote(name, safe="")


def unreachable(error: httpx.HTTPError, url: str, *, guessed: bool = False) -> CliError:
    """What to tell a person whose server did not answer; ``guessed`` where nobody named the address."""
    if isinstance(error, httpx.ConnectError) and is_loopback(url):
        elsewhere = "\nOr log in to one elsewhere: penstock login --control-url URL" if guessed else ""
        return CliError(f"Penstock is not running at {url}; start it with: penstock serve{elsewhere}")
    if isinstance(error, httpx.ConnectError):
        return CliError(f"Cannot connect to {url}: {error}")
    if isinstance(error, httpx.TimeoutException):
        return CliError(f"{url} did not answer in time.")
    return CliError(f"The connection to {url} failed: {error or type(error).__name__}")


def error_body(response: httpx.Response) -> dict[str, Any]:
    """The error object of an answer with a bad status; empty when it is no JSON object."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_gateway(response: httpx.Response) -> bool:
    """Whether the refusal has the data plane's form: an error object, and no ``id`` as the Platform API has."""
    body = error_body(response)
    return isinstance(body.get("error"), dict) and "id" not in body


def _decode(response: httpx.Response) -> Any:
    if not response.content:
        return {}
    try:
        return response.json()
    except ValueError as error:
        url = f"{response.request.url.scheme}://{response.request.url.netloc.decode()}"
        raise CliError(f"{url} answered something else than JSON; is it a Penstock control plane?") from error
