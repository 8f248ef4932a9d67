"""Turn into the given command, watched by a child that ends it when the starter dies.

`python guard.py LOCK_FD COMMAND...`, without a lock `-`: standard input is a pipe that only the starter holds
open. This process execs the command, so its pid is the command's. Its child waits for the pipe's end, then
ends its parent: however the starter stopped, the kernel closes the pipe. Asking for the parent's pid first
makes a reused pid harmless. A pipe, not PR_SET_PDEATHSIG: that signal comes when the starting *thread* ends,
and only on Linux.
"""

import os
import select
import signal
import sys
import time

LOOK_EVERY_S = 1.0
STOP_LIMIT_S = 5.0


def watch(command_pid: int) -> None:
    """Return when the command has ended; end it when standard input ends."""
    while os.getppid() == command_pid:
        readable, _, _ = select.select([0], [], [], LOOK_EVERY_S)
        if readable and not os.read(0, 1):
            end(command_pid)
            return


def end(command_pid: int) -> None:
    """SIGTERM, then SIGKILL after STOP_LIMIT_S, as long as the process is still our parent."""
    limit = time.monotonic() + STOP_LIMIT_S
    if os.getppid() == command_pid:
        os.kill(command_pid, signal.SIGTERM)
        os.kill(command_pid, signal.SIGCONT)
    while os.getppid() == command_pid:
        if time.monotonic() > limit:
            os.kill(command_pid, signal.SIGKILL)
        time.sleep(0.05)


def main() -> None:
    """Fork the watcher, then become the command."""
    lock_fd, command = sys.argv[1], sys.argv[2:]
    own_pid = os.getpid()
    if os.fork() == 0:
        if lock_fd != "-":
            os.close(int(lock_fd))
        silence = os.open(os.devnull, os.O_RDWR)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        watch(own_pid)
        os._exit(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
