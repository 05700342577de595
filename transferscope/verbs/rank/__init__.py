"""Which network, cut where, adapted how: the question and its answer."""
