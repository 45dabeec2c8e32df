"""The one front door: a table of commands.  python cli.py <command> --help"""

import sys

from commands.front_door import Command, run

COMMANDS = {
    "collect": Command("commands.collect:collect", "make demonstrations with a scripted expert"),
    "download": Command("commands.download:download", "fetch an official Robomimic file"),
    "inspect": Command("commands.inspect:inspect", "what is in a data set, and every problem found"),
    "fit": Command("commands.train:train", "train a diffusion policy on demonstrations"),
    "validate": Command("commands.train:train", "validation loss and success rate of a checkpoint"),
    "test": Command("commands.train:train", "loss, action error and success rate of a checkpoint"),
    "predict": Command("commands.train:train", "action chunks for held-out observations, as a file"),
    "export": Command("commands.export:export", "turn a Lightning checkpoint into a policy file"),
    "evaluate": Command("commands.evaluate:evaluate", "success rate with its confidence interval"),
    "record": Command("commands.record:record", "one MP4 per episode"),
    "plot": Command("commands.plot:plot", "curves of a training run as a picture"),
    "dsrl": Command("commands.dsrl:dsrl", "steer a frozen policy by RL in its noise space"),
}

if __name__ == "__main__":
    sys.exit(run(COMMANDS, sys.argv[1:]))
