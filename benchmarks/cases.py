"""Situations in which networks and images are easily misread, and what happens in each: reading/cases/page.py."""

from reading.cases.page import main

if __name__ == "__main__":
    main()
