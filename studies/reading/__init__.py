"""Reading: a study as figures, pages and people see it."""
