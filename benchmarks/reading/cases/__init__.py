"""Situations in which networks and images are easily misread: a module for each kind."""
