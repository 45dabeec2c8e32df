"""robosuite 1.5: all that is peculiar to this version."""
