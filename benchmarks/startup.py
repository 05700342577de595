"""How long the import, `--help` and completion take: speed/startup.py."""

from speed.startup import main

if __name__ == "__main__":
    main()
