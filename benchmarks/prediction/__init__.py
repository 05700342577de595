"""What is expected of a transfer before it is run, fitted to ground truth v1 and judged on it."""
