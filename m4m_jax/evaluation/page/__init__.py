"""`report.html`: one file with figures, plots, piano rolls and a player; it needs no network."""
