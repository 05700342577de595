"""Comparing networks, side by side with other tools: comparison/similarity.py."""

from comparison.similarity import main

if __name__ == "__main__":
    main()
