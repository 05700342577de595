"""NumPy and CuPy mathematics that more than one room needs."""
