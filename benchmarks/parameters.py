"""How well pretrained parameters serve, layer by layer: protocols/parameters.py."""

from protocols.parameters import main

if __name__ == "__main__":
    main()
