"""The simulator: robosuite as a gymnasium environment, and worker processes that run it."""
