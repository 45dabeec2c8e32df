"""robosuite 1.4.1: all that is peculiar to this version."""
