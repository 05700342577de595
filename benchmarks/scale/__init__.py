"""Engines against the real thing: the same answer everywhere, what a unit costs, a large zoo that is simulated."""
