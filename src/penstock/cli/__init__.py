"""The command line: Heroku's grammar for the control plane, plus chat, weights and the server itself."""
