"""Gateways on several machines with one database: two servers, two homes, one master key, one PostgreSQL."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from penstock.domain.ledger import LedgerEntry
from penstock.store.database import Database
from penstock.store.metering.ledger import LedgerStore
from penstock.store.metering.verify import verify
from tests.app.test_reload import until
from tests.app.volley import Answer, chat, one_each, volley
from tests.gateway.conftest import answer_plainly, control
from tests.server import Server, running
from tests.upstream import ScriptedUpstream

CONFIG = """
[engine]
enabled = false
[gateway]
workers = {workers}
[serve]
drain_s = 5
[database]
url = "{url}"
[[provider]]
name = "double"
base_url = "{base}"
[[model]]
id = "m"
max_attempts = 1
targets = [{{ provider = "double", model = "m" }}]
price = {{ input = 1, output = 2 }}
"""


@dataclass
class App:
    """One app on both servers, its key, and every answer that it has had."""

    pair: "Twins"
    name: str
    key: str
    key_id: str
    answers: list[Answer] = field(default_factory=list)

    @property
    def admitted(self) -> int:
        """How many requests were answered."""
        return sum(one.status == 200 for one in self.answers)

    def fire(self, count: int, *, servers: int = 2) -> list[Answer]:
        """So many requests at once, to all workers of both, or of the first."""
        answers = volley(self.pair.gateways[:servers], chat(self.key), count, workers=self.pair.workers)
        self.answers += answers
        return answers

    def ask(self) -> Answer:
        """One request to the first server."""
        (answer,) = volley(self.pair.gateways[:1], chat(self.key), 1, workers=1, each=1)
        self.answers.append(answer)
        return answer

    def ask_each(self) -> list[Answer]:
        """One request to every worker of both."""
        answers = one_each(self.pair.gateways, chat(self.key), workers=self.pair.workers)
        self.answers += answers
        return answers

    def limit(self, per_minute: int) -> None:
        """Limits its key, by the first server, and waits until every worker of both says so."""
        body = {"key": self.key_id, "requests_per_minute": per_minute}
        control(self.pair.servers[0], "PATCH", f"/apps/{self.name}/limits", body)
        self.until_told(per_minute)

    def until_told(self, per_minute: int) -> None:
        """Asks until the answers of all workers tell this limit."""
        told = {str(per_minute)}
        until(lambda: {one.headers.get("x-ratelimit-limit-requests") for one in self.ask_each()} == told, "the limit")

    def entries(self) -> list[LedgerEntry]:
        """What the ledger has of it, once that is all."""
        found: list[LedgerEntry] = []

        def all_there() -> bool:
            found[:] = [one for one in self.pair.entries() if one.app_name == self.name]
            return len(found) >= self.admitted

        until(all_there, "the entries")
        return found


@dataclass
class Twins:
    """Two running servers on one database, and the upstream behind both."""

    servers: tuple[Server, Server]
    upstream: ScriptedUpstream
    url: str
    workers: int

    @property
    def gateways(self) -> list[str]:
        """Where they take requests."""
        return [server.gateway for server in self.servers]

    def app(self, name: str) -> App:
        """A new app with a key of its own."""
        first = self.servers[0]
        control(first, "POST", "/apps", {"name": name})
        control(first, "POST", f"/apps/{name}/addons", {"plan": "heroku-inference:standard"})
        secret = control(first, "GET", f"/apps/{name}/config-vars")["INFERENCE_KEY"]
        (key,) = control(first, "GET", f"/apps/{name}/keys")
        return App(self, name, secret, key["id"])

    def entries(self) -> list[LedgerEntry]:
        """The whole ledger, which is proven to be whole."""
        with self.database() as db:
            assert verify(db).faults == ()
            return LedgerStore(db).entries(limit=1_000_000)

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """The database of both."""
        db = Database.open(self.url, home=self.servers[0].home, upkeep=True)
        try:
            yield db
        finally:
            db.close()


@contextlib.contextmanager
def twins(folder: Path, url: str, *, workers: int) -> Iterator[Twins]:
    """Two servers with so many workers each, on an empty PostgreSQL database."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(ScriptedUpstream(answer_plainly))
        config = folder / "penstock.toml"
        config.write_text(CONFIG.format(workers=workers, url=url, base=upstream.base))
        first = stack.enter_context(running(folder / "first", "--config", str(config)))
        (folder / "second").mkdir(mode=0o700)
        shutil.copy2(first.home / "master.key", folder / "second" / "master.key")
        second = stack.enter_context(running(folder / "second", "--config", str(config)))
        yield Twins((first, second), upstream, url, workers)


def widest(entries: list[LedgerEntry]) -> int:
    """The most admissions in any window of 60 seconds."""
    times = sorted(entry.admitted_us for entry in entries)
    most = start = 0
    for end, at in enumerate(times):
        while at - times[start] >= 60_000_000:
            start += 1
        most = max(most, end - start + 1)
    return most
