"""The only room that knows the web framework and the HTTP server library."""
