"""What is written for clusters fits them: Kubernetes' and Ray's own schemas, and our own command line."""

import json
import re
import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from jobs.command import from_mapping, parse
from jobs.indexing.options import IndexConfig
from jobs.serving.options import ServeConfig

ROOT = Path(__file__).parents[1]
MANIFESTS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((ROOT / "k8s").glob("*.yaml"))}
DASHBOARD = json.loads((ROOT / "k8s" / "dashboard.json").read_text())
CLUSTERS: dict[str, dict[str, Any]] = {
    "cluster": MANIFESTS["cluster"]["spec"],
    "index": MANIFESTS["index"]["spec"]["rayClusterSpec"],
    "serve": MANIFESTS["serve"]["spec"]["rayClusterConfig"],
}


def check_as_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.33", strict=True)


def index_options(command: list[str]) -> IndexConfig:
    """What our command line makes of `python -m jobs.index …`."""
    assert command[:3] == ["python", "-m", "jobs.index"]
    return parse(IndexConfig, "index", command[3:])


def test_the_nightly_run_never_overlaps_and_its_command_is_ours() -> None:
    nightly = MANIFESTS["nightly"]
    check_as_kubernetes(nightly)
    assert nightly["spec"]["concurrencyPolicy"] == "Forbid"
    (pod,) = nightly["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert pod["command"][:3] == ["ray", "job", "submit"]
    assert "--no-wait" not in pod["command"] and pod["command"][-1] == "--"  # the pod lives as long as the run
    assert f"http://{MANIFESTS['cluster']['metadata']['name']}-head-svc:8265" in pod["command"]
    assert index_options(pod["args"]) == index_options(shlex.split(MANIFESTS["index"]["spec"]["entrypoint"]))


@pytest.mark.parametrize("name", ["account", "store", "ingress"])
def test_what_is_kubernetes_own_satisfies_its_schemas(name: str) -> None:
    check_as_kubernetes(MANIFESTS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["podmonitor", "alerts"])
def test_what_is_prometheus_operators_satisfies_its_schemas(name: str) -> None:
    import cloudcoil.models.prometheus_operator.v1 as prometheus_operator  # noqa: PLC0415 -- 2 s

    kind = getattr(prometheus_operator, MANIFESTS[name]["kind"])
    assert kind.model_validate(MANIFESTS[name]).kind == kind.__name__
    with pytest.raises(ValidationError):  # the schema is one that refuses
        kind.model_validate({**MANIFESTS[name], "spec": {"podMetricsEndpoints": 1, "groups": 1}})


def test_alerts_are_rules_that_prometheus_takes(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, of the package prometheus, is not installed")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(MANIFESTS["alerts"]["spec"]))
    tests = yaml.safe_load((ROOT / "tests" / "alerts.yaml").read_text())
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({**tests, "rule_files": ["rules.yaml"]}))
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_and_dashboard_ask_for_metrics_that_are_exported() -> None:
    """As Ray names them: with `ray_` before, counters with `_total` behind, histograms in three parts."""
    rooms = [ROOT / "jobs" / "serving" / "metrics.py", ROOT / "jobs" / "indexing" / "progress.py"]
    made = re.findall(r'(Counter|Gauge|Histogram)\(\s*"(rsir_\w+)"', "".join(room.read_text() for room in rooms))
    suffixes = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}
    exported = {f"ray_{name}{suffix}" for kind, name in made for suffix in suffixes[kind]}
    rules = [rule["expr"] for group in MANIFESTS["alerts"]["spec"]["groups"] for rule in group["rules"]]
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"ray_rsir_\w+", " ".join(rules + shown)))
    assert asked and asked <= exported
    assert {f"ray_{name}" for _, name in made if "last_" in name} <= asked | {"ray_rsir_last_run_drift"}


def test_compose_runs_our_commands_and_prometheus_and_grafana_find_what_they_need() -> None:
    folder = ROOT / "compose"
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    assert index_options(shlex.split(services["index"]["command"])).index == "/data/index"
    command = shlex.split(services["endpoint"]["command"])
    assert command[:3] == ["python", "-m", "jobs.serve"]
    options = parse(ServeConfig, "serve", command[3:])
    assert options.index == "/data/index" and services["endpoint"]["ports"] == [f"127.0.0.1:8000:{options.port}"]
    (scraped,) = yaml.safe_load((folder / "prometheus.yaml").read_text())["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"endpoint:{options.metrics_port}"]}]
    for name in ("prometheus", "grafana"):
        mounts = [mount.split(":")[0] for mount in services[name]["volumes"] if mount.startswith(".")]
        assert mounts and all((folder / mount).is_file() for mount in mounts)


def test_the_monitor_reads_the_port_that_every_pod_has() -> None:
    (read,) = MANIFESTS["podmonitor"]["spec"]["podMetricsEndpoints"]
    for cluster in CLUSTERS.values():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            (container,) = group["template"]["spec"]["containers"]
            assert read["port"] in {port["name"] for port in container["ports"]}


def test_pods_are_the_account_and_know_the_store_and_have_no_rights() -> None:
    for cluster in CLUSTERS.values():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            assert pod["serviceAccountName"] == MANIFESTS["account"]["metadata"]["name"]
            (source,) = container["envFrom"]
            assert source["secretRef"]["name"] == MANIFESTS["store"]["metadata"]["name"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_requests_from_outside_reach_the_endpoint_by_tls_and_only_where_it_is_ready() -> None:
    ingress, endpoint = MANIFESTS["ingress"]["spec"], MANIFESTS["serve"]
    (rule,) = ingress["rules"]
    assert [rule["host"]] == ingress["tls"][0]["hosts"]
    service = rule["http"]["paths"][0]["backend"]["service"]
    assert service["name"] == f"{endpoint['metadata']['name']}-serve-svc"
    assert service["port"]["number"] == yaml.safe_load(endpoint["spec"]["serveConfigV2"])["http_options"]["port"]
    (group,) = endpoint["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "serve"}
    assert "local_raylet_healthz" in container["livenessProbe"]["exec"]["command"][-1]  # says nothing of the queries


@pytest.mark.parametrize("name", CLUSTERS)
def test_rays_resources_hold_pods_and_a_head_without_work(name: str) -> None:
    manifest, cluster = MANIFESTS[name], CLUSTERS[name]
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"] == {"cluster": "RayCluster", "index": "RayJob", "serve": "RayService"}[name]
    groups = {"head": cluster["headGroupSpec"], **{g["groupName"]: g for g in cluster["workerGroupSpecs"]}}
    for group in groups.values():
        check_as_kubernetes({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]})
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == MANIFESTS["nightly"]["spec"]["jobTemplate"]["spec"]["template"]["spec"][
            "containers"
        ][0]["image"]  # fmt: skip
    assert groups["head"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"] and cluster["authOptions"] == {"mode": "token"}
    if name != "serve":
        assert CLUSTERS["cluster"] == cluster
        gpu = groups["gpu"]["template"]["spec"]
        assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert "spot" in gpu["nodeSelector"].values()


def test_the_images_ray_is_the_one_that_the_project_pins() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)", (ROOT / "k8s" / "Dockerfile").read_text(), re.MULTILINE)
    assert all(f":{cluster['rayVersion']}-" in base for cluster in CLUSTERS.values())
    assert yaml.safe_load((ROOT / "cluster.yaml").read_text())["docker"]["image"] == base
    for_cpus = base.replace("-gpu", "-cpu")
    compose = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())
    assert compose["x-rsir"]["build"]["args"]["BASE"] == f"${{RSIR_BASE:-{for_cpus}}}"


@pytest.mark.parametrize("file", ["serve.yaml", "k8s/serve.yaml"])
def test_serve_configurations_satisfy_rays_own_schema_and_ours(file: str) -> None:
    from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415 -- loads ray

    from jobs import serve  # noqa: PLC0415 -- as above

    config = yaml.safe_load((ROOT / file).read_text())
    if file.startswith("k8s"):
        config = yaml.safe_load(config["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema(**config).applications
    module, _, name = str(application.import_path).partition(":")
    assert module == serve.__name__ and callable(getattr(serve, name))
    assert from_mapping(ServeConfig, file, application.args).index.startswith("s3://")


def test_cluster_yaml_satisfies_rays_own_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config  # noqa: PLC0415 -- loads ray

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    nodes = config["available_node_types"]
    assert nodes[config["head_node_type"]]["resources"]["CPU"] == 0
    assert nodes["gpu"]["resources"]["GPU"] and nodes["gpu"]["node_config"]["InstanceMarketOptions"] == {
        "MarketType": "spot"
    }
    assert all({"ImageId", "BlockDeviceMappings"} <= set(node["node_config"]) for node in nodes.values())
    assert nodes["cpu"]["min_workers"] == nodes["gpu"]["min_workers"] == 0


def test_a_job_uploads_its_code_and_nothing_that_jobs_have_made(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package  # noqa: PLC0415 -- loads ray

    excludes = yaml.safe_load((ROOT / "runtime_env.yaml").read_text())["excludes"]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    code, package = tmp_path / "code", tmp_path / "package.zip"
    for name in listed.splitlines():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, code / name)
    before = set(listed.splitlines())
    for made in (
        *("models/bundle.json", "index/features/1.parquet", "report/report.html", "tokens", "seed0/split.csv"),
        *(".venv/bin/python", "jobs/__pycache__/index.pyc", "rsir.egg-info/PKG-INFO", ".mypy_cache/3.11/a.json"),
    ):
        (code / made).parent.mkdir(parents=True, exist_ok=True)
        (code / made).write_text("made by a job")
    create_package(str(code), package, include_gitignore=False, excludes=excludes)
    with zipfile.ZipFile(package) as content:
        sent = {name for name in content.namelist() if not name.endswith("/")}
    beside = {"LICENSE", "cluster.yaml", "pyproject.toml", "runtime_env.yaml", "serve.yaml"}
    assert sent == beside | {name for name in before if name.startswith(("jobs/", "rsir_core/"))}
