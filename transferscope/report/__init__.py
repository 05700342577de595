"""What people read: tables, files and pictures, all made from the same `Ranking`."""
