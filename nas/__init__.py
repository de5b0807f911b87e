"""How candidates are trained, judged and searched. Knows no particular search space."""
