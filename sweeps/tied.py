"""python tied.py PARENT CPUS PROGRAM ...: becomes that program, which ends when its parent does.

Linux kills it then; other systems know no such tie. The parent may have blocked or taken over signals (Ray's workers
have): the program gets them as a shell would give them.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process, then replace it.

    PARENT is the process that started it; CPUS are numbers with commas between, empty for all.
    """
    parent, cpus, *program = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpus:
            os.sched_setaffinity(0, [int(cpu) for cpu in cpus.split(",")])
    if os.getppid() != int(parent):
        sys.exit("the parent ended before it could be watched")
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
