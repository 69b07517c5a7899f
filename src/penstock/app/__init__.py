"""The composition root: settings to store to adapters to wings, wired by hand, and the supervisor of it all."""
