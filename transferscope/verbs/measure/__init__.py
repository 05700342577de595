"""Really running a grid of transfers: which runs there are, on which images, and where their results are kept."""
