"""Ground truth v2: the networks people have, trained the way people train, see README.md."""
