"""Scores of numbers and of several labels an image, on real pictures with a known answer: transferability/tasks.py."""

from transferability.tasks import main

if __name__ == "__main__":
    main()
