"""Records of what was found: no pictures, no pages."""
