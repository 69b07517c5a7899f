"""The control plane: Heroku's Platform API (heroku-wire.md section 4) over the store."""
