"""Which target serves a request, what its failures mean, and what a worker knows of the health of each target."""
