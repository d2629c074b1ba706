"""What is done to a simulated run: faults of the grammar, crashes, kills in calls, forgeries."""
