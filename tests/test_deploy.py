"""The compose file and the Kubernetes objects: valid, complete, closed by default."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from serving import ROOT

COMPOSE = ROOT / "deploy" / "compose.yaml"
KUBERNETES = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.29", "1.34"  # of the versions of Kubernetes that the objects are valid for


def load(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def objects():
    """Return the objects that kustomization.yaml names, by kind and name."""
    found = {}
    for file in load(KUBERNETES / "kustomization.yaml")["resources"]:
        for one in yaml.safe_load_all((KUBERNETES / file).read_text(encoding="utf-8")):
            found[one["kind"], one["metadata"]["name"]] = one
    return found


OBJECTS = objects()
SERVICES = load(COMPOSE)["services"]


def pod(kind, name):
    spec = OBJECTS[kind, name]["spec"]
    return spec["jobTemplate"]["spec"]["template"] if kind == "CronJob" else spec["template"]


class TestCompose:
    def test_is_valid_by_the_schema(self):
        command = [sys.executable, "-m", "check_jsonschema"]
        command += ["--builtin-schema", "vendor.compose-spec", COMPOSE]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_has_what_the_operator_needs(self):
        assert set(SERVICES) == {
            "feedsieve",
            "postgres",
            "prometheus",
            "grafana",
            "label-studio",
            "mlflow",
        }

    @pytest.mark.parametrize("name", SERVICES)
    def test_ports_are_on_loopback_and_health_is_checked(self, name):
        service = SERVICES[name]
        assert all(port.startswith("${BIND:-127.0.0.1}:") for port in service.get("ports", ()))
        assert service["healthcheck"]["test"][0] == "CMD"

    @pytest.mark.parametrize("name", SERVICES)
    def test_processes_have_no_privileges(self, name):
        service = SERVICES[name]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service.get("user") not in ("0", "root") and not service.get("privileged")

    def test_the_service_writes_to_one_volume_only(self):
        service = SERVICES["feedsieve"]
        assert service["read_only"] is True
        assert service["volumes"] == ["feedsieve:/data"]
        for name in ("FEEDSIEVE_CACHE", "FEEDSIEVE_STATE"):
            assert service["environment"][name].startswith("/data/")

    def test_secrets_have_no_default(self):
        text = COMPOSE.read_text(encoding="utf-8")
        secret = r"\$\{([A-Z_]*(?:PASSWORD|USERNAME|TOKEN|KEY)[A-Z_]*)(.)(.)"
        required = re.findall(secret, text)
        assert required and all(operator == ":" and how == "?" for _, operator, how in required)
        example = (ROOT / "deploy" / "example.env").read_text(encoding="utf-8").splitlines()
        given = [line.partition("=") for line in example if line and line[0] != "#"]
        assert {name for name, _, _ in given} == {name for name, _, _ in required}
        assert all(value == "" for _, _, value in given)

    def test_mounted_files_exist(self):
        for service in SERVICES.values():
            for volume in service.get("volumes", ()):
                source = volume.split(":")[0]
                if source.startswith("."):
                    assert (COMPOSE.parent / source).exists(), source
                else:
                    assert source in load(COMPOSE)["volumes"]

    def test_versions_are_those_that_are_pinned(self):
        pins = (ROOT / "constraints.txt").read_text() + (
            ROOT / "labeling" / "requirements.txt"
        ).read_text()
        for name in ("mlflow", "label-studio"):
            version = SERVICES[name]["image"].rpartition(":")[2].removeprefix("v")
            assert f"\n{name}=={version}" in pins

    def test_prometheus_may_ask_the_service(self):
        [target] = load(ROOT / "deploy/prometheus/prometheus.yml")["scrape_configs"][0][
            "static_configs"
        ][0]["targets"]
        allowed = SERVICES["feedsieve"]["environment"]["FEEDSIEVE_ALLOWED_HOSTS"]
        assert target.partition(":")[0] in re.split(r"[,}]", allowed)


class TestKubernetes:
    @pytest.mark.parametrize("version", [OLDEST, NEWEST])
    @pytest.mark.parametrize("one", OBJECTS.values(), ids=lambda one: one["kind"])
    def test_objects_are_valid_by_the_schema(self, one, version):
        import kubernetes_validate

        kubernetes_validate.validate(one, version, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(one | {"metadata": "wrong"}, version, strict=True)

    def test_kustomization_names_every_file(self):
        kustomization = load(KUBERNETES / "kustomization.yaml")
        files = {file.name for file in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
        assert set(kustomization["resources"]) == files
        for generator in kustomization["secretGenerator"]:
            for name in generator["envs"]:
                example = KUBERNETES / name.replace(".env", ".example.env")
                lines = example.read_text(encoding="utf-8").splitlines()
                assert lines and all(line.endswith("=") for line in lines)  # no values
                assert (
                    f"/{(KUBERNETES / name).relative_to(ROOT)}" in (ROOT / ".gitignore").read_text()
                )

    def test_images_are_those_that_kustomization_replaces(self):
        names = {image["name"] for image in load(KUBERNETES / "kustomization.yaml")["images"]}
        used = {
            container["image"]
            for kind, name in (("Deployment", "feedsieve"), ("CronJob", "feedsieve-retraining"))
            for container in pod(kind, name)["spec"]["containers"]
        }
        assert used == names

    @pytest.mark.parametrize(
        ("kind", "name"), [("Deployment", "feedsieve"), ("CronJob", "feedsieve-retraining")]
    )
    def test_pods_have_no_privileges(self, kind, name):
        spec = pod(kind, name)["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == {volume["name"] for volume in spec["volumes"]}

    def test_selectors_find_the_pods(self):
        labels = pod("Deployment", "feedsieve")["metadata"]["labels"].items()
        deployment = OBJECTS["Deployment", "feedsieve"]["spec"]
        assert deployment["selector"]["matchLabels"].items() <= labels
        assert OBJECTS["Service", "feedsieve"]["spec"]["selector"].items() <= labels
        [autoscaler] = [one for (kind, _name), one in OBJECTS.items() if "Autoscaler" in kind]
        budget = OBJECTS["PodDisruptionBudget", "feedsieve"]["spec"]
        assert budget["selector"]["matchLabels"].items() <= labels
        assert budget["minAvailable"] < autoscaler["spec"]["minReplicas"]
        network = OBJECTS["NetworkPolicy", "feedsieve"]["spec"]
        assert network["podSelector"]["matchLabels"].items() <= labels
        target = OBJECTS["HorizontalPodAutoscaler", "feedsieve"]["spec"]["scaleTargetRef"]
        assert ("Deployment", target["name"]) in OBJECTS

    def test_pods_end_after_their_requests(self):
        spec = pod("Deployment", "feedsieve")["spec"]
        [container] = spec["containers"]
        [_sleep, seconds] = container["lifecycle"]["preStop"]["exec"]["command"]
        assert int(seconds) + 10 < spec["terminationGracePeriodSeconds"]
        paths = [
            container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("readiness", "liveness")
        ]
        assert paths == ["/readyz", "/livez"]

    def test_the_scaling_metric_is_measured(self, small_server):
        metrics = OBJECTS["HorizontalPodAutoscaler", "feedsieve"]["spec"]["metrics"]
        [name] = [one["pods"]["metric"]["name"] for one in metrics if one["type"] == "Pods"]
        assert small_server.metric(name)

    def test_retraining_runs_a_command_that_exists(self):
        [container] = pod("CronJob", "feedsieve-retraining")["spec"]["containers"]
        python, flag, module, *options = container["command"]
        assert (python, flag) == ("python", "-m") and importlib.util.find_spec(module)
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "80"},
        )
        assert all(one in done.stdout for one in options if one.startswith("--"))
