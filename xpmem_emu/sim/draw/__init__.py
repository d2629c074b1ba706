"""What a seed draws: a world within the bounds of a swarm, as a plan."""
