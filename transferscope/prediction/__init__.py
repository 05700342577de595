"""What a transfer would reach, foretold from the target's images and a source, without running it."""
