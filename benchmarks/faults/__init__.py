"""What damaged, hostile and odd inputs do."""
