"""Tests of graphopt.testing: golden cases and traps have to be able to fail."""
