"""Fit what `transferscope rank` predicts accuracies by, and write it into the package: prediction/calibrate.py."""

from prediction.calibrate import main

if __name__ == "__main__":
    main()
