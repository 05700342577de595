"""Which layers of two networks do the same: the question and its answer."""
