"""What the papers claim, measured: protocol, networks, runs, verdicts, report and figure."""
