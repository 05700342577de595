"""What a reference costs, how accurate it is and what it finds similar, by recipe: speed/reference.py."""

from speed.reference import main

if __name__ == "__main__":
    main()
