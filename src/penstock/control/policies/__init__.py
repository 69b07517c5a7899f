"""How apps are treated, and what is kept of what they ask."""
