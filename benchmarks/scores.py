"""Time of the transferability scores, and what they say of real networks: transferability/scores.py."""

from transferability.scores import main

if __name__ == "__main__":
    main()
