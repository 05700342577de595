"""What else the prediction could be made from, and how far it reaches: prediction/predictors.py."""

from prediction.predictors import main

if __name__ == "__main__":
    main()
