"""The models of fixtures/: constructed ones (bit-reproducible) and trained ones (need torch)."""
