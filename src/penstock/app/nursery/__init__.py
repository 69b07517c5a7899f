"""Where children are made: forked from a template that has imported everything already, or started afresh."""
