"""What `rank` costs beside forward passes and beside real transfers: speed/cost.py."""

from speed.cost import main

if __name__ == "__main__":
    main()
