"""Schema migrations, run by penstock.store.migrate when the database is opened."""
