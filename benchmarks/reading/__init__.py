"""Whether networks and images are read right, or refused with the right reason."""
