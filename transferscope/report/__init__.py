"""Views of results: tables on a terminal, pictures, pages."""
