"""A story that a demo can tell, on many seeds: prediction/story.py."""

from prediction.story import main

if __name__ == "__main__":
    main()
