"""Comparing networks, beside the tools that people use today."""
