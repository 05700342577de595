"""Whether `rank` chooses better than scores and rules: prediction/selection.py."""

from prediction.selection import main

if __name__ == "__main__":
    main()
