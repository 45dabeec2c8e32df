"""The one front door: a table of commands.  python cli.py <command> --help"""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # Behind the standard library: a copy.py or json.py that somebody leaves beside this file is not Python's own.
    sys.path.insert(sys.path.index(os.path.dirname(os.__file__)), sys.path.pop(0))

from commands.front_door import Command, run_in_shell

TRAIN = "commands.train:train"
# One name per kind of flag in every command; the names that they stand for work as well.
OF_FIT = {"--dataset": "--data.path", "--output": "--best.dirpath", "--resume": "--ckpt_path=last"}
OF_A_CHECKPOINT = {"--dataset": "--data.path", "--checkpoint": "--ckpt_path", "--output": "--best.dirpath"}
OF_PREDICT = {**OF_A_CHECKPOINT, "--output": "--predictions.output"}
OF_DSRL = {"--dataset": "--demonstrations.path", "--checkpoint": "--bc_checkpoint"}

COMMANDS = {
    "collect": Command("commands.collect:collect", "make demonstrations: a scripted expert's, or many out of few"),
    "download": Command("commands.download:download", "fetch an official Robomimic file"),
    "convert": Command("commands.convert:convert", "make a low-dim data set of a raw recording"),
    "inspect": Command("commands.inspect:inspect", "what is in a data set, and every problem found"),
    "playback": Command("commands.playback:playback", "demonstrations as videos"),
    "fit": Command(TRAIN, "train a diffusion policy on demonstrations", OF_FIT),
    "validate": Command(TRAIN, "validation loss and success rate of a checkpoint", OF_A_CHECKPOINT),
    "test": Command(TRAIN, "loss, action error and success rate of a checkpoint", OF_A_CHECKPOINT),
    "predict": Command(TRAIN, "action chunks for held-out observations, as a file", OF_PREDICT),
    "export": Command("commands.export:export", "turn a checkpoint into a policy file, or into an ONNX graph"),
    "evaluate": Command("commands.evaluate:evaluate", "success rate with its confidence interval"),
    "record": Command("commands.record:record", "one MP4 per episode"),
    "report": Command("commands.report:report", "a page about runs or results files, side by side"),
    "plot": Command("commands.plot:plot", "curves of a training run as a picture", {"--run": "--logdir"}),
    "dsrl": Command("commands.dsrl:dsrl", "steer a frozen policy by RL in its noise space", OF_DSRL),
    "sweep": Command("commands.sweep:sweep", "many runs: a grid of command lines and seeds"),
}


def main() -> int:
    """Run the command that the process's own words name; the exit status."""
    return run_in_shell(COMMANDS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
