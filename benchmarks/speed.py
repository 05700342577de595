"""`rank` against a loop of forward passes: speed/naive.py."""

from speed.naive import main

if __name__ == "__main__":
    main()
