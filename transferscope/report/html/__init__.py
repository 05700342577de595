"""Results as a page that needs no server and no internet."""
