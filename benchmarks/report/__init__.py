"""Pictures and pages, to be looked at."""
