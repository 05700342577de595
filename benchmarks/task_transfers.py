"""Real transfers to several labels and to numbers, as tables on the command line: transferability/task_transfers.py."""

from transferability.task_transfers import main

if __name__ == "__main__":
    main()
