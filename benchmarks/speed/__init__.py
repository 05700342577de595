"""Time and memory: of ranking, of training, of the start of a command."""
