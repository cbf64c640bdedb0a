"""Whole trainings as jobs on workers: processes here, and machines over SSH with another home."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import Client
from local_cluster import local_workers
from mlflow_server import mlflow_server, run
from serving import free_port, wait_until
from tiny_bert import save_tiny_bert

from data.generate import LABELED, compose, write
from feedsieve import __version__
from feedsieve.bulk.score_file import ClusterUnavailable
from train import jobs
from train.behaviour.suite import Suite
from train.compute import dask_job, dask_launch
from train.compute.dask_cluster import connect
from train.compute.dask_job import JobFailed, Machine
from train.compute.dask_launch import Hosts
from train.data.labelled import read_labeled
from train.data.split import data_fingerprint
from train.jobs import fetch_report, submit
from train.options import Options
from train.report.file_names import FILES, METRICS_FILE
from train.tracking import data_versions, registry

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    write(compose(200, 7), folder)
    save_tiny_bert(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def options(folder) -> Options:
    return Options(
        data=folder / LABELED,
        db=None,
        encoder=str(folder / "tiny"),
        finetune=False,
        behave=None,
        report=folder / "report",
        seed=7,
        track=True,
    )


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_workers(1) as client:
        yield client


def trainings() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children(recursive=True) if "--as-of" in child.cmdline()
    ]


class TestJob:
    def test_models_and_report_come_back_through_mlflow(self, client, options, tmp_path):
        lines: list[str] = []
        metrics = submit(client, options).follow(lines.append)
        frame = read_labeled(options.data)
        data = f"on {len(frame)} labels of {LABELED}, fingerprint {data_fingerprint(frame)}"
        assert data in lines
        version = registry.behind(registry.CHALLENGER)
        assert version.pair.classifier_tag == metrics["classifier_tag"]
        assert data_versions.fetch(version.pair.data_fingerprint).name == LABELED
        fetch_report(metrics, tmp_path / "report")
        assert {file.name for file in (tmp_path / "report").iterdir()} == set(FILES)
        assert json.loads((tmp_path / "report" / METRICS_FILE).read_text()) == metrics

    def test_failure_has_the_last_line(self, client, options):
        job = submit(client, replace(options, encoder="/absent"))
        with pytest.raises(JobFailed, match=r"ended with exit code 1: train: .*absent"):
            job.follow(lambda _line: None)

    def test_cancelled_training_ends(self, client, options):
        job = submit(client, options)
        wait_until(trainings)
        job.cancel()
        wait_until(lambda: not trainings())
        with pytest.raises(JobFailed, match="was cancelled"):
            job.follow(lambda _line: None)
        assert client.submit(sum, [1, 2]).result() == 3  # the worker takes the next task

    def test_training_ends_with_its_worker_and_is_not_repeated(self, client, options):
        job = submit(client, options)
        wait_until(trainings)
        [worker] = client.run(os.getpid).values()
        psutil.Process(worker).kill()
        with pytest.raises(ClusterUnavailable, match=f"the worker on {socket.gethostname()}"):
            job.follow(lambda _line: None)
        wait_until(lambda: not trainings())


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"features": Path("feature_repo")}, "leave out --features"),
            ({"cluster": "local:2"}, "leave out --cluster"),
            ({"track": False}, "leave out --no-track"),
            ({"encoder": "tiny"}, "absolute path of a folder on the worker"),
            ({"behave": Suite("flats.toml", {}, {}, {}, {})}, "flats.toml is not on the worker"),
            ({"behave": Suite("mine.toml", {}, {}, {}, {})}, "mine.toml is not on the worker"),
        ],
    )
    def test_options_that_a_job_cannot_have(self, options, change, message):
        with pytest.raises(JobFailed, match=message):
            submit(None, replace(options, **change))

    def test_worker_of_another_version(self):
        with pytest.raises(ClusterUnavailable, match="far has feedsieve 0.1, and this machine"):
            dask_job.choose([Machine("tcp://far:1", "far", "0.1", False)])

    def test_worker_with_a_gpu_is_preferred(self):
        names = {"one": False, "two": True, "three": False}
        machines = [Machine(name, name, __version__, gpu) for name, gpu in names.items()]
        assert dask_job.choose(machines).name == "two"

    def test_file_of_mlflow_is_out_of_reach_for_others(self):
        machines = [Machine("tcp://far:1", "far", __version__, False)]
        with pytest.raises(ClusterUnavailable, match="far cannot reach MLflow at sqlite:///m.db"):
            jobs._for_workers("sqlite:///m.db", machines)
        with pytest.raises(ClusterUnavailable) as error:
            jobs._for_workers("postgresql://me:secret@db/mlflow", machines)
        assert "secret" not in str(error.value)
        assert jobs._for_workers("http://mlflow:5000", machines) == "http://mlflow:5000"

    @pytest.mark.parametrize(
        "where",
        ["local:0", "local", "slurm:", "kubernetes:two", "ssh://", "ssh://a b", "ssh://a:99999"],
    )
    def test_place_that_cannot_be_read(self, where):
        with pytest.raises(ClusterUnavailable, match=r"is neither|is not ssh://"), connect(where):
            pass

    def test_missing_sbatch_is_named(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(ClusterUnavailable, match="needs sbatch"), connect("slurm:1"):
            pass

    def test_absent_kubernetes_is_named(self, monkeypatch, tmp_path):
        import dask
        import dask_kubernetes.operator  # noqa: F401  # its defaults, which `set` would take along

        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        image = {"kubernetes.image": "registry.example/feedsieve:1"}
        with (
            dask.config.set(image),
            pytest.raises(ClusterUnavailable, match="Kubernetes starts no cluster"),
            connect("kubernetes:1"),
        ):
            pass

    def test_closed_port_of_ssh_is_named(self):
        where = f"ssh://127.0.0.1:{free_port()}"
        with (
            pytest.raises(ClusterUnavailable, match="SSH does not reach 127.0.0.1"),
            connect(where),
        ):
            pass


class TestPlaces:
    def test_hosts_have_users_ports_and_an_interpreter(self):
        hosts = Hosts.parse("ssh://lab@one:2222,two,[::1]/srv/my%20venv/bin/python")
        assert hosts.names == ["one", "two", "::1"]
        assert hosts.options == [{"username": "lab", "port": 2222}, {}, {}]
        assert hosts.python == "/srv/my venv/bin/python"
        assert Hosts.parse("ssh://one").python == sys.executable

    def test_objects_of_kubernetes_are_valid(self, monkeypatch):
        import dask
        import kubernetes_validate

        with pytest.raises(ClusterUnavailable, match="DASK_KUBERNETES__IMAGE"):
            dask_launch.kubernetes_cluster(2)
        with dask.config.set({"kubernetes.image": "registry.example/feedsieve:1"}):
            cluster = dask_launch.kubernetes_cluster(2)
        assert cluster["spec"]["worker"]["replicas"] == 2
        metadata = {"apiVersion": "v1", "metadata": {"name": "feedsieve"}}
        service = {**metadata, "kind": "Service", "spec": cluster["spec"]["scheduler"]["service"]}
        kubernetes_validate.validate(service, "1.34", strict=True)
        for role in ("worker", "scheduler"):
            pod = {**metadata, "kind": "Pod", "spec": cluster["spec"][role]["spec"]}
            assert pod["spec"]["containers"][0]["image"] == "registry.example/feedsieve:1"
            kubernetes_validate.validate(pod, "1.34", strict=True)


@contextlib.contextmanager
def ssh_server(folder: Path, home: Path) -> Iterator[int]:
    """Run an SSH server for the user of the tests, whose HOME is `home` there; yield its port."""
    for name in ("host", "key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(command, check=True)
    port = free_port()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'key.pub'}\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"SetEnv HOME={home} BENTOML_HOME={home / 'bentoml'} BENTOML_DO_NOT_TRACK=True\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-f", folder / "config"], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield port
    finally:
        server.terminate()
        server.wait()


@pytest.mark.lab
@pytest.mark.skipif(not SSHD, reason="no SSH server is installed (Debian: openssh-server)")
def test_training_over_ssh_is_promoted_and_served_here(folder, options, tmp_path, monkeypatch):
    """Fine-tune over SSH in another home, which has a model store of its own; promote here."""
    far, here = tmp_path / "far", tmp_path / "here"
    client_home = tmp_path / "client"
    for home in (far, here, client_home / ".ssh"):
        home.mkdir(parents=True)
    (tmp_path / "server").mkdir()
    (tmp_path / "empty.db").touch()
    with (
        ssh_server(tmp_path, far) as port,
        mlflow_server(tmp_path / "empty.db", tmp_path / "server") as mlflow,
    ):
        public = (tmp_path / "host.pub").read_text()
        (client_home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
        (client_home / ".ssh" / "config").write_text(
            f"Host 127.0.0.1\n  IdentityFile {tmp_path / 'key'}\n"
        )
        monkeypatch.setenv("HOME", str(client_home))
        arguments = ["--data", folder / LABELED, "--encoder", folder / "tiny", "--finetune"]
        arguments += ["--on", f"ssh://127.0.0.1:{port}"]
        done = run(here, mlflow, "-m", "train", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "fine-tun" in done.stdout
        metrics = json.loads((here / "reports" / METRICS_FILE).read_text(encoding="utf-8"))
        tag = metrics["classifier_tag"].replace(":", "/")
        assert (far / "bentoml" / "models" / tag).is_dir()
        assert not (here / "bentoml" / "models" / tag).exists()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
        registry.move(registry.CHAMPION, 1)
        done = run(here, mlflow, "-m", "train.promote", "--champion")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (here / "bentoml" / "models" / tag).is_dir()
        (here / "texts.csv").write_text("msg_id,msg\n1,Сдаю квартиру\n", encoding="utf-8")
        done = run(here, mlflow, "-m", "feedsieve", "score", "texts.csv", "scored.csv")
        assert done.returncode == 0, done.stdout + done.stderr
        assert metrics["classifier_tag"] in done.stdout + done.stderr
