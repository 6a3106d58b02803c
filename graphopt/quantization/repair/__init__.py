"""Wins back, without labels, what rounding to few bits costs in accuracy."""
