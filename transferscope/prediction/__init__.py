"""What a transfer would reach, predicted from the target's images and a source, without running it."""
