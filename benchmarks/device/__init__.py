"""Everything on a GPU: tests, round trips, similarity, scores and extraction against what the machine can do."""
