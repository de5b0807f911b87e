"""Commands: what each of them does between parsing and printing."""
