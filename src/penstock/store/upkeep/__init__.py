"""What an operator does to a whole database: check, back up, restore, move, re-seal."""
