"""What actually transfers, and what it is compared with."""
