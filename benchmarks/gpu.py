"""Tests and measurements on a GPU: device/run.py."""

from device.run import main

if __name__ == "__main__":
    main()
