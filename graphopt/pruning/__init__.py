"""Channel pruning: which channels are coupled, which matter least, and the repair afterwards."""
