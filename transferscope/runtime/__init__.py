"""What any run needs: progress, the cache, seeds, provenance, cost, failures."""
