"""Rank real networks: the answer, its time and its memory: speed/spine.py."""

from speed.spine import main

if __name__ == "__main__":
    main()
