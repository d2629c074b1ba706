"""A cluster as this machine knows it: which partitions it has and where they are, in which folders
its files lie, whose keys guard it, who of it lives. Starts nothing and talks to nobody."""
