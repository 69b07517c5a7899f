"""The contestants of a run, in the order in which they are shown."""

from bench.contestants import Contestant
from bench.peers import direct, litellm, nginx, penstock, portkey

ALL: tuple[Contestant, ...] = (
    Contestant("direct", direct.start),
    Contestant("nginx", nginx.start),
    Contestant("penstock", penstock.start),
    Contestant("portkey", portkey.start),
    Contestant("litellm", litellm.start),
)
