"""Time and memory of top-tuning, and what its defaults rest on: protocols/toptuning.py."""

from protocols.toptuning import main

if __name__ == "__main__":
    main()
