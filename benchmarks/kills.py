"""What kills at every step on the disk and at random instants leave behind: faults/kills.py."""

from faults.kills import main

if __name__ == "__main__":
    main()
