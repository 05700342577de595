"""What each protocol really gives and costs, and a grid that is killed and goes on: protocols/transfers.py."""

from protocols.transfers import main

if __name__ == "__main__":
    main()
