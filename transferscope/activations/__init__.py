"""Forward passes to features: stages, hooks, reductions, Gram matrices."""
