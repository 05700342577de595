"""What `transferscope advise` expects, against transfers that were run: prediction/advice.py."""

from prediction.advice import main

if __name__ == "__main__":
    main()
