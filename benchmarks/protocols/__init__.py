"""Transfers that are really run: what each protocol gives and costs, and how well parameters serve."""
