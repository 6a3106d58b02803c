"""Tests of the built-in passes: golden cases, and what these cannot say."""
