"""Tests of what the project's own scripts write."""
