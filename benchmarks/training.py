"""Training runs per minute, alone, in processes and stacked: speed/training.py."""

from speed.training import main

if __name__ == "__main__":
    main()
