"""Single transfers, really run: for the grids of `measure` and the pilots of `rank`."""
