"""Start clusters: processes here, machines over SSH, jobs of Slurm, pods of Kubernetes.

All are Dask's own. Settings that depend on the place (partition and memory, image and namespace)
are those of Dask's configuration, so they are not repeated here.
"""

import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from uuid import uuid4

from feedsieve.bulk.score_file import ClusterUnavailable

if TYPE_CHECKING:
    from distributed.deploy.cluster import Cluster

_COUNTED = re.compile(r"(local|slurm|kubernetes):([1-9]\d{0,3})")
_SSH = re.compile(r"ssh://([^/\s]+)(/\S+)?")
_HOST = re.compile(r"(?:([^@,\s]+)@)?([^@:,\s\[\]]+|\[[\da-fA-F:]+\])(?::(\d{1,5}))?")
PLACES = "local:N, ssh://[USER@]HOST[:PORT][,HOST][/PYTHON], slurm:N or kubernetes:N"
NAME = "feedsieve"  # of pods and jobs


def is_place(where: str) -> bool:
    """Return whether `start` reads `where`."""
    return bool(_COUNTED.fullmatch(where) or where.startswith("ssh://"))


def start(where: str) -> "Cluster":
    """Start a cluster; whoever calls this closes it.

    `local:N` is N processes of one thread here. `ssh://[USER@]HOST[:PORT],HOST,.../PYTHON` is a
    worker on each host, and the scheduler on the first; PYTHON is the path of the interpreter
    there, by default the path of this one. `slurm:N` and `kubernetes:N` have N jobs or pods.
    Raises ClusterUnavailable.
    """
    try:
        if where.startswith("ssh://"):
            return _over_ssh(where)
        counted = _COUNTED.fullmatch(where)
        assert counted, where
        kind, count = counted[1], int(counted[2])
        if kind == "local":
            return _local(count)
        return _on_slurm(count) if kind == "slurm" else _on_kubernetes(count)
    except ImportError as error:
        raise ClusterUnavailable(
            f"{where} needs: pip install -c constraints.txt -e '.[jobs]' ({error})"
        ) from error


@dataclass(frozen=True)
class Hosts:
    """Machines to reach over SSH."""

    names: list[str]
    options: list[dict[str, Any]]  # of asyncssh.connect, for each
    python: str

    @classmethod
    def parse(cls, where: str) -> "Hosts":
        """Read `ssh://…`. Raises ClusterUnavailable."""
        parts = _SSH.fullmatch(where)
        found = [_HOST.fullmatch(host) for host in parts[1].split(",")] if parts else [None]
        hosts = [host for host in found if host and int(host[3] or 22) < 1 << 16]
        if not parts or len(hosts) < len(found):
            raise ClusterUnavailable(
                f"{where!r} is not ssh://[USER@]HOST[:PORT][,HOST...][/PATH/TO/PYTHON]"
            )
        options = [
            {
                **({"username": host[1]} if host[1] else {}),
                **({"port": int(host[3])} if host[3] else {}),
            }
            for host in hosts
        ]
        names = [host[2].strip("[]") for host in hosts]
        return cls(names, options, unquote(parts[2] or sys.executable))


def _local(count: int) -> "Cluster":
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",  # Dask always serves HTTP; leave 8787 to `make cluster`
        scheduler_kwargs={"dashboard": False},
    )


def _over_ssh(where: str) -> "Cluster":
    import asyncssh
    from distributed import SSHCluster

    hosts = Hosts.parse(where)
    try:
        return SSHCluster(
            [hosts.names[0], *hosts.names],
            connect_options=[hosts.options[0], *hosts.options],
            scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            worker_options={"nthreads": 1},
            remote_python=shlex.quote(hosts.python),  # Dask makes a line for a shell of it
        )
    except Exception as error:  # Dask's are bare; theirs has the cause
        cause = error.__cause__ or error
        machines = ", ".join(hosts.names)
        if isinstance(cause, OSError):
            reason = f"SSH does not reach {machines}: {cause.strerror or cause}"
        elif isinstance(cause, asyncssh.Error):
            reason = f"SSH refuses {machines}: {cause.reason}"
        else:
            reason = (
                f"no worker starts on {machines} ({cause}); is {hosts.python} there, with"
                " feedsieve[train,cluster]?"
            )
        raise ClusterUnavailable(reason) from error


def _on_slurm(count: int) -> "Cluster":
    import dask
    from dask_jobqueue import SLURMCluster

    if not shutil.which("sbatch"):  # Dask would wait for its workers for ever
        raise ClusterUnavailable("slurm:N needs sbatch, which is not on this machine's PATH")
    # One thread for tasks, as everywhere; a whole training uses both cores.
    needed: dict[str, Any] = {"cores": 1, "job_cpu": 2, "processes": 1, "memory": "8GB"}
    needed["python"] = sys.executable
    given = dask.config.get("jobqueue.slurm")
    missing = {
        name: value for name, value in needed.items() if given[name.replace("_", "-")] is None
    }
    return SLURMCluster(n_workers=count, job_name=NAME, **missing)


def _on_kubernetes(count: int) -> "Cluster":
    from dask_kubernetes.operator import KubeCluster
    from dask_kubernetes.operator.kubecluster.kubecluster import CreateMode

    # Not a cluster of that name that somebody else has.
    create = CreateMode.CREATE_ONLY
    wanted = kubernetes_cluster(count)
    try:
        return KubeCluster(custom_cluster_spec=wanted, create_mode=create)
    except Exception as error:  # of kr8s, httpx or asyncio: no access, no operator, no image
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ClusterUnavailable(f"Kubernetes starts no cluster of Dask: {reason}") from error


def kubernetes_cluster(count: int) -> dict[str, Any]:
    """Return the DaskCluster resource of `count` workers, as Dask's configuration describes them.

    Raises ClusterUnavailable without an image: Dask's own has no feedsieve.
    """
    import dask
    from dask_kubernetes.operator import make_cluster_spec

    configured = dask.config.get("kubernetes")
    if configured["image"].startswith("ghcr.io/dask/dask:"):
        raise ClusterUnavailable(
            "kubernetes:N needs an image with feedsieve[train,cluster]: set DASK_KUBERNETES__IMAGE"
        )
    return make_cluster_spec(
        f"{NAME}-{uuid4().hex[:8]}",
        image=configured["image"],
        n_workers=count,
        resources=configured["resources"],
        env=configured["env"],
    )
