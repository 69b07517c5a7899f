"""How a call can fail before its answer is complete. faults.py maps these to public errors."""


class TransportError(Exception):
    """A call that did not become a complete answer. Messages hold no header, body or credential."""


class ConnectFailed(TransportError):
    """Nothing accepted the connection."""


class ProxyRefused(ConnectFailed):
    """The configured proxy does not let the call through. Holds nothing of the proxy's URL."""


class ConnectTimeout(ConnectFailed):
    """The connection was not established in time."""


class FirstByteTimeout(TransportError):
    """The head of the answer did not arrive in time."""


class IdleTimeout(TransportError):
    """The body stopped arriving."""


class FirstTokenTimeout(TransportError):
    """The head arrived, and then nothing that a client could be shown."""


class TotalTimeout(TransportError):
    """The answer was not complete in time."""


class ConnectionLost(TransportError):
    """The peer closed before the answer was complete."""


class ProtocolViolation(TransportError):
    """The peer does not speak HTTP/1.1."""


class AnswerTooLarge(TransportError):
    """Head or body exceed the limit."""
