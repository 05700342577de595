"""See prediction/any_task.py."""

from prediction.any_task import main

if __name__ == "__main__":
    main()
