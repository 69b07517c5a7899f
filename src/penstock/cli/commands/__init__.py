"""One module per noun; cli.table names the commands in them."""
