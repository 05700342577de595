"""Labelled images: targets, their samples, batches and splits."""
