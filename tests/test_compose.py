"""compose/dev: what it names is there, what it sets is read, and it says so."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from scheduler.settings import ENVIRONMENT_NAMES, ROOT, load_settings

FOLDER = ROOT / "compose" / "dev"
FILES = ("docker-compose.yml", "gpu.yml", "hosts.yml")
TEXTS = {name: (FOLDER / name).read_text() for name in FILES}
EXAMPLE = (FOLDER / ".env.example").read_text()
VARIABLE = re.compile(r"\$\{([A-Z_0-9]+)(?::?([-+?])([^{}]*|\$?[^{}]*\$\{[^}]*\}))?\}")

READ_BY_OTHERS = {
    # in the ray containers: the variable, and the file of a package that reads it
    "HF_HOME": "huggingface_hub/constants.py",
    "HF_TOKEN": "huggingface_hub/utils/_auth.py",
    "AWS_ACCESS_KEY_ID": "botocore/credentials.py",
    "AWS_SECRET_ACCESS_KEY": "botocore/credentials.py",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "ray/serve/_private/constants.py",
}
BY_COMPOSE_ITSELF = {"COMPOSE_FILE"}


class Loader(yaml.SafeLoader):
    """Knows compose's ``!reset``, which takes away what an earlier file says."""


Loader.add_constructor("!reset", lambda loader, node: None)
MAIN: dict[str, Any] = yaml.load(TEXTS["docker-compose.yml"], Loader)
SERVICES: dict[str, Any] = MAIN["services"]


def example_values() -> dict[str, str]:
    lines = [line for line in EXAMPLE.splitlines() if re.match(r"[A-Z]", line)]
    return dict(line.split("=", 1) for line in lines)


def interpolated(text: str, values: dict[str, str]) -> str:
    """``${NAME:-default}`` and ``${NAME:+other}`` with their values, as compose puts them in."""

    def value(match: re.Match[str]) -> str:
        name, sign, other = match.groups()
        given = values.get(name, "")
        if sign == "+":
            return interpolated(other, values) if given else ""
        return given or ((other or "") if sign == "-" else "")

    return VARIABLE.sub(value, text)


def plain(text: str) -> str:
    """YAML without anchors and merges."""
    return yaml.safe_dump(yaml.load(text, Loader))


@pytest.mark.parametrize("name", ["docker-compose.yml", "gpu.yml"])
def test_it_follows_the_compose_specification(name: str) -> None:
    parsed = compose_spec.PyCompose.from_yaml(plain(interpolated(TEXTS[name], {})))
    parsed.validate()
    assert set(parsed.service_names()) >= {"ray", "ray-worker"}


def test_a_mistake_would_be_found() -> None:
    text = plain(interpolated(TEXTS["docker-compose.yml"], {})).replace("restart:", "restrat:", 1)
    with pytest.raises(ValueError, match="restrat"):
        compose_spec.PyCompose.from_yaml(text)


def test_every_variable_is_told_and_none_is_told_in_vain() -> None:
    used = {name for text in TEXTS.values() for name in re.findall(r"\$\{([A-Z_0-9]+)", text)}
    assert used | BY_COMPOSE_ITSELF == set(example_values())


def test_every_variable_has_a_comment_above_its_group() -> None:
    commented = False
    for line in EXAMPLE.splitlines():
        assert not re.match(r"[A-Z]", line) or commented, line
        commented = bool(line.strip())


def test_the_defaults_are_those_of_the_example() -> None:
    values = example_values()
    for name, sign, default in VARIABLE.findall(TEXTS["docker-compose.yml"]):
        if sign == "-" and name not in ("RAY_ADDRESS", "MINIO_ROOT_USER"):
            assert values[name] in (default, ""), name


def test_the_ray_containers_set_what_somebody_reads() -> None:
    packages = Path(yaml.__file__).parent.parent
    for service in ("ray", "ray-worker"):
        for name in SERVICES[service]["environment"]:
            if name in READ_BY_OTHERS:
                assert name in (packages / READ_BY_OTHERS[name]).read_text(), name
            elif name not in ENVIRONMENT_NAMES:
                assert name.startswith("NDIF_"), f"nothing reads {name}"


@pytest.mark.parametrize("files", [FILES[:1], (*FILES[:1], FILES[2])], ids=["one machine", "several"])
@pytest.mark.parametrize("service", ["ray", "ray-worker"])
def test_the_settings_of_a_container_are_accepted(
    monkeypatch: pytest.MonkeyPatch, service: str, files: tuple[str, ...]
) -> None:
    for name in [one for one in os.environ if one in ENVIRONMENT_NAMES or one.startswith("NDIF_")]:
        monkeypatch.delenv(name)
    values = example_values() | {"HOST_IP": "192.168.1.10", "SCHEDULING_GOOGLE_CREDS_PATH": "key.json"}
    for file in files:
        content = yaml.load(interpolated(TEXTS[file], values), Loader)
        for name, value in content["services"][service]["environment"].items():
            monkeypatch.setenv(name, str(value if value is not None else ""))
    settings = load_settings()
    assert settings.ray.token_path == Path("/opt/ndif-ray/token/ray_token")
    if service == "ray":
        several = len(files) > 1
        assert (settings.ray.head_port, settings.serve.port) == (6380 if several else 6379, 8267)
        assert settings.ray.host == ("192.168.1.10" if several else "0.0.0.0")
        assert settings.web.hosts == ("ray",)
        assert settings.calendar.google_creds_path == Path("/opt/ndif-ray/creds/key.json")


def test_ports_are_those_the_service_has_always_had() -> None:
    ports = yaml.load(interpolated(TEXTS["docker-compose.yml"], {}), Loader)["services"]["ray"]["ports"]
    assert ports == [
        "127.0.0.1:6380:6379",
        "127.0.0.1:9998:10001",
        "127.0.0.1:8266:8265",
        "127.0.0.1:8267:8267",
        "127.0.0.1:8280:8280",
    ]


def test_nothing_is_published_beyond_loopback_unless_the_operator_says_so() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            loopback = r"127\.0\.0\.1:|\$\{(LOKI_)?BIND_IP:-127\.0\.0\.1\}:"
            assert re.match(loopback, port), f"{name} publishes {port}"


def test_images_are_pinned_and_every_service_tells_its_health() -> None:
    for name, service in SERVICES.items():
        if name.startswith("ray"):
            continue  # the image that is built here, which has its own HEALTHCHECK
        tag = service["image"].partition(":")[2]
        assert re.search(r"\d+\.\d+|\d{4}-\d\d-\d\d", tag), service["image"]
        assert service["healthcheck"]["test"][0] == "CMD", name


def test_no_secret_is_in_the_files() -> None:
    for text in (*TEXTS.values(), EXAMPLE):
        for name, default in re.findall(r"([A-Z_]*(?:PASSWORD|TOKEN|SECRET|WEB_KEY))(?::-|=)([^}\s]*)", text):
            assert default in ("", "/opt/ndif-ray/token/ray_token"), name


def test_volumes_and_folders_that_are_mounted_are_there() -> None:
    volumes = set(MAIN["volumes"])
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            source = interpolated(mount, {}).split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).is_dir(), source
            else:
                assert source in volumes, source


def test_ray_alone_needs_no_other_service() -> None:
    assert "depends_on" not in SERVICES["ray"]
    assert "profiles" not in SERVICES["ray"]
    assert all(service["profiles"] for name, service in SERVICES.items() if name != "ray")


class Made:
    """make-env.sh, run in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("make-env.sh", ".env.example"):
            shutil.copy(FOLDER / name, folder)

    def run(self, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / "make-env.sh")]
        return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)

    def values(self) -> dict[str, str]:
        lines = [line for line in (self.folder / ".env").read_text().splitlines() if re.match(r"[A-Z]", line)]
        return dict(line.split("=", 1) for line in lines)


def test_an_environment_is_made_with_secrets_of_its_own(tmp_path: Path) -> None:
    made = Made(tmp_path)
    assert made.run().returncode == 0
    values = made.values()
    assert set(values) == set(example_values())
    secrets = [value for name, value in values.items() if re.search("PASSWORD|ADMIN_TOKEN|KEY$", name)]
    assert len(secrets) == len(set(secrets)) == 5
    assert min(map(len, secrets)) >= 32
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert values["PIP_EXTRA_INDEX_URL"].endswith("/cpu")
    # addresses inside compose name its services
    for name in ("OBJECT_STORE_URL", "INFLUXDB_ADDRESS", "LOKI_URL"):
        assert values[name].split("/")[2].split(":")[0] in SERVICES


def test_a_machine_with_gpus_gets_them(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "nvidia-smi").write_text("#!/bin/sh\n")
    (programs / "nvidia-smi").chmod(0o755)
    made = Made(tmp_path)
    assert made.run(f"{programs}:/usr/bin:/bin").returncode == 0
    assert made.values()["COMPOSE_FILE"].split(":") == ["docker-compose.yml", "gpu.yml"]
    assert made.values()["PIP_EXTRA_INDEX_URL"] == ""


def test_an_environment_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("mine")
    assert Made(tmp_path).run().returncode == 1
    assert (tmp_path / ".env").read_text() == "mine"
