"""Whether architectures of every family are read right, by every verb: reading/architectures.py."""

from reading.architectures import main

if __name__ == "__main__":
    main()
