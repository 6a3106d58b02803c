"""int8 and narrower: ranges, where to quantize on which backend, rounding, repair."""
