"""What a transfer leaves behind: one network from images to classes, that can be built again and exported."""
