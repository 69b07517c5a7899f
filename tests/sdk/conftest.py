"""Two apps of the SDK tests: one on the standard plan, one on a plan of a single model."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.providers.hosted import Host, Hosted, hosting
from tests.server import Server

MODEL = "smollm2-135m-instruct"
STAND_IN = "claude-4-5-sonnet"
TRANSLATED = ("anthropic", "bedrock", "gemini")


@dataclass(frozen=True)
class Inference:
    """The config vars of an app. ``base_url`` is what an SDK takes."""

    url: str
    key: str

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


@pytest.fixture(scope="session")
def standard(penstock_server: Server) -> Inference:
    """An app whose key may use every model."""
    penstock_server.cli("create", "sdk-standard")
    penstock_server.cli("addons:create", "heroku-inference:standard", "-a", "sdk-standard", "--as", "INFERENCE")
    return inference(penstock_server, "sdk-standard")


@pytest.fixture(scope="session")
def one_model(penstock_server: Server) -> Inference:
    """An app whose key may use one model only."""
    penstock_server.cli("create", "sdk-one-model")
    penstock_server.cli("ai:models:create", "-a", "sdk-one-model", MODEL, "--as", "INFERENCE")
    return inference(penstock_server, "sdk-one-model")


def inference(server: Server, app: str) -> Inference:
    return Inference(server.config_var(app, "INFERENCE_URL"), server.config_var(app, "INFERENCE_KEY"))


@pytest.fixture(scope="session")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """A server before the vendors' doubles."""
    with hosting(tmp_path_factory.mktemp("hosted")) as server:
        yield server


@pytest.fixture(params=TRANSLATED)
def host(request: pytest.FixtureRequest, hosted: Hosted) -> Host:
    """One vendor of another dialect than ours after the other."""
    return hosted.hosts[request.param]
