"""Transport: two arms bring a hammer from one bin to the other, from hand to hand, and clear the other of trash."""

from envs.tasks.task import Task

# The hammer's sizes are drawn with each model.
TRANSPORT = Task(name="transport", env_name="TwoArmTransport", horizon=700, object_dim=41, robots=2, random_model=True)
