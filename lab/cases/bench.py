"""What a case is given: a daemon, attached disks, and the certainty that all is cleared away afterwards."""

import glob

from . import daemon as daemons
from . import disk, resources, target
from .command import Failed, attempt, end


class Bench:
    def __init__(self, full):
        self.full = full
        self._daemon = None
        self._processes = []
        self.peer_names = ()  # sessions of others that may be there in the end

    @property
    def daemon(self):
        """The daemon, started when it is first needed."""
        if self._daemon is None:
            self._daemon = daemons.Daemon()
        return self._daemon

    def forget_daemon(self):
        """For cases that ended it themselves."""
        self._daemon = None

    def attach(self, line=None, *options, limit=60):
        """Attaches; returns the new disks by LUN."""
        assert self.daemon
        report = daemons.answer("attach", line or target.line(), *options, limit=limit)
        return disk.by_lun(report["devices"])

    def detach(self, *disks, force=False, limit=60):
        words = [each.path for each in disks] or ["--all"]
        return daemons.answer("detach", *words, *(["--force"] if force else []), limit=limit)

    def watch(self, process):
        """Has a process ended with the case."""
        self._processes.append(process)
        return process

    def close(self):
        """After a case that succeeded: nothing may be left, neither while the daemon runs nor after its end."""
        for process in self._processes:
            end(process)
        if self._daemon:
            resources.check_released(self.peer_names)
            self._daemon.end()
            self._daemon = None
        resources.check_nothing_left()

    def sweep(self):
        """After a case that failed: whether the guest could be made as new."""
        for process in self._processes:
            end(process)
        try:
            mounts = [line.split()[1] for line in open("/proc/self/mounts") if line.startswith("/dev/ublkb")]
            for place in mounts:
                attempt("umount", "-l", place, limit=10)
            if self._daemon:
                attempt(daemons.PROGRAM, "detach", "--all", "--force", limit=20)
                self._daemon.kill()
            attempt("peer-logout", limit=40)
            if glob.glob("/dev/ublk[bc]*"):
                return False
            target.rebuild()
            resources.check_nothing_left()
            resources.check_released()
            return True
        except (Failed, OSError) as error:
            print("the guest could not be cleared up:", error)
            return False
