"""`rank --pilots auto` on real networks, checked against transfers that were run: prediction/trial.py."""

from prediction.trial import main

if __name__ == "__main__":
    main()
