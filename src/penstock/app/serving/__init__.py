"""What is served and by whom: planned from the settings, handed to the children, taken up by them, reloaded."""
