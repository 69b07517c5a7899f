"""The real Heroku CLI against this installation: its environment, and the proxy and certificates that it needs."""
