"""Half precision: what stays float32, and where the casts go."""
