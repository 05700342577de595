"""What becomes of files, answers and the machine when things go wrong."""
