"""From an answer to a model: a transfer that is run, delivered in a folder, and predicts."""
