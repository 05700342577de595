"""Training of one network, or of several that differ in their head alone."""
