"""Act with an exported policy at 20 Hz, without torch: python examples/deploy.py square.onnx

Needs onnxruntime and numpy; the simulator stands for the robot.
"""

import json
import sys
import time

import numpy as np
import onnxruntime

from envs.robosuite_env import RobosuiteEnv

if len(sys.argv) != 2:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1])
about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
shapes = {each.name: (1, *each.shape[1:]) for each in session.get_inputs()}
rng = np.random.default_rng(0)
robot = RobosuiteEnv(about["env_args"], about["obs"])
obs = robot.reset(seed=0)[0]
done = False
while not done:
    drawn = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items() if name == "noise"}
    (chunk,) = session.run(None, {"obs": obs[None], **drawn})[0]
    for action in chunk:
        start = time.perf_counter()
        obs, reward, success, timed_out, info = robot.step(action)
        done = success or timed_out
        time.sleep(max(0.0, 1 / 20 - (time.perf_counter() - start)))
        if done:
            break
print("success" if success else "failure", "after", robot.length, "steps")
