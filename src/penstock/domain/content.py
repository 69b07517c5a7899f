"""What was asked and answered, of apps that have it kept."""

import msgspec

# Of a prompt, and of an answer, so many bytes are kept.
LONGEST = 256 * 1024


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """One request of an app as its client sent it, and what it was answered; ``at_us`` is its admission in microseconds
    of Unix time. A ``_cut`` text was longer than what is kept of one. The answer to a streamed request is the message
    that its chunks add up to. ``outcome`` is that of the request's settlement."""

    request_id: str
    app_id: str
    at_us: int
    key_prefix: str
    model: str
    outcome: str
    request: str
    answer: str
    request_cut: bool = False
    answer_cut: bool = False

    def __repr__(self) -> str:
        return f"Content({self.request_id})"
