"""Commands of operators and administrators, and the bridge to the real Heroku CLI."""
