"""One page that says what was measured, for those who decide and were not there: reads results, never reruns them."""
