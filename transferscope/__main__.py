"""`python -m transferscope`: the command line."""

from transferscope.cli import main

if __name__ == "__main__":
    main()
