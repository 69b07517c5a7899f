"""The store: the only room that speaks SQL. One module per noun, all alike; times are aware UTC datetimes."""
