"""What is written down: the MLPerf log, the record of a run, the package."""
