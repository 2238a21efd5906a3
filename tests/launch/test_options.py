"""How Ray is started: labels, arguments, environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.errors import OperatorError
from scheduler.launch import options
from scheduler.settings import GIB, MIB, RaySettings, Settings, load_settings


def fake_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 81559; echo 81559", 81559),
        ("echo 81559; echo 24564", 24564),  # the smallest: what is reckoned must fit on any
        ("echo '[N/A]'", None),
        ("echo no devices were found; exit 6", None),
        ("exit 9", None),
    ],
)
def test_gpu_memory_comes_from_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: int | None
) -> None:
    fake_nvidia_smi(tmp_path, script, monkeypatch)
    assert options.gpu_memory_mib() == expected


def test_no_nvidia_smi_means_no_gpu_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert options.gpu_memory_mib() is None


def test_labels_name_the_node_and_its_gpu_memory() -> None:
    assert options.labels("gpu-a", 81559) == "ndif.us/node=gpu-a,ndif.us/gpu-memory-mib=81559"
    assert options.labels("laptop", None) == "ndif.us/node=laptop"


@pytest.mark.parametrize("host_name", ["laptop", "Ada's MacBook", "x" * 100, "-a-", "ü", "lab.example.org"])
def test_any_host_name_makes_a_label(monkeypatch: pytest.MonkeyPatch, host_name: str) -> None:
    monkeypatch.setattr(options.socket, "gethostname", lambda: host_name)
    assert options.LABEL_VALUE.fullmatch(options.node_name(Settings()))


@pytest.mark.parametrize("name", ["", "a b", "a,b=c", "x" * 64, "-a"])
def test_a_name_that_cannot_be_a_label_is_refused(name: str) -> None:
    with pytest.raises(OperatorError, match="NDIF_RAY__NODE_NAME"):
        options.node_name(Settings(ray=RaySettings(node_name=name)))


def test_folder_is_short_stable_private_and_each_service_has_its_own(tmp_path: Path) -> None:
    one, other = Settings(state_dir=tmp_path / "a"), Settings(state_dir=tmp_path / "b")
    folders = [
        options.temp_dir(one, "head"),
        options.temp_dir(one, "worker"),
        options.temp_dir(other, "head"),
    ]
    try:
        assert len(set(folders)) == 3
        assert folders[0] == options.temp_dir(one, "head")
        assert all(len(str(folder)) < 38 for folder in folders)
        assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)
    finally:
        for folder in folders:
            folder.rmdir()


def test_a_temporary_folder_with_too_long_a_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options.os, "access", lambda path, how: False)
    monkeypatch.setattr(options.tempfile, "gettempdir", lambda: "/" + "long" * 10)
    with pytest.raises(OperatorError, match="TMPDIR"):
        options.temp_dir(Settings(state_dir=tmp_path), "head")


@pytest.mark.parametrize(
    ("ram", "has_gpu", "expected"),
    [
        (1 * GIB, False, 128 * MIB),
        (16 * GIB, False, int(0.8 * GIB)),
        (128 * GIB, False, 1 * GIB),
        (100 * GIB, True, 10 * GIB),
        (2048 * GIB, True, 16 * GIB),
    ],
)
def test_object_store_is_small(ram: int, has_gpu: bool, expected: int) -> None:
    assert options.object_store_bytes(ram, ram, has_gpu) == pytest.approx(expected, abs=1)


def test_object_store_fits_into_the_shared_memory_of_a_container() -> None:
    assert options.object_store_bytes(512 * GIB, 2 * GIB, has_gpu=True) == pytest.approx(1.8 * GIB, abs=1)
    assert options.shared_memory_bytes() > 0


def test_the_interval_of_metrics_keeps_its_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_METRICS_GAUGE_EXPORT_INTERVAL_MS", "2500")
    found = options.environment(load_settings(), {}, head=True, has_gpu=False)
    assert found["RAY_metrics_report_interval_ms"] == "2500"


def test_head_arguments_follow_the_settings(tmp_path: Path) -> None:
    settings = Settings(ray=RaySettings(host="10.0.0.5", head_port=6381, num_gpus=3, node_name="n"))
    arguments = options.head_arguments(settings, tmp_path, 1000)
    assert {"--head", "--block", "--port=6381", "--node-ip-address=10.0.0.5", "--num-gpus=3"} <= set(
        arguments
    )
    assert "--labels=ndif.us/node=n,ndif.us/gpu-memory-mib=1000" in arguments
    assert "--dashboard-host=127.0.0.1" in arguments


@pytest.mark.parametrize(("host", "told"), [("127.0.0.1", False), ("0.0.0.0", False), ("10.0.0.6", True)])
def test_a_worker_tells_its_address_only_if_it_is_one(tmp_path: Path, host: str, told: bool) -> None:
    settings = Settings(ray=RaySettings(host=host, address="10.0.0.5:6380"))
    arguments = options.worker_arguments(settings, tmp_path, None)
    assert "--address=10.0.0.5:6380" in arguments
    assert ("--node-ip-address=10.0.0.6" in arguments) is told


class TestEnvironment:
    def made(self, caller: dict[str, str], **changes: bool) -> dict[str, str]:
        return options.environment(Settings(), caller, head=changes.get("head", True), has_gpu=False)

    def test_the_token_decides_who_gets_in_whatever_the_caller_has_set(self) -> None:
        made = self.made(
            {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "theirs", "RAY_AUTH_TOKEN_PATH": "/x"}
        )
        assert made["RAY_AUTH_MODE"] == "token"
        assert made["RAY_AUTH_TOKEN_PATH"].endswith("var/ray_token")
        assert "RAY_AUTH_TOKEN" not in made

    def test_another_cluster_of_the_caller_is_forgotten(self) -> None:
        assert not {"RAY_ADDRESS", "RAY_TMPDIR"} & set(self.made({"RAY_ADDRESS": "a:1", "RAY_TMPDIR": "/x"}))

    def test_what_an_operator_tunes_stays(self) -> None:
        made = self.made({"RAY_health_check_timeout_ms": "9", "OMP_NUM_THREADS": "4"})
        assert (made["RAY_health_check_timeout_ms"], made["OMP_NUM_THREADS"]) == ("9", "4")

    def test_replicas_use_one_thread_each_only_where_there_is_no_gpu(self) -> None:
        assert self.made({})["OMP_NUM_THREADS"] == "1"
        assert "OMP_NUM_THREADS" not in options.environment(Settings(), {}, head=True, has_gpu=True)

    def test_a_head_on_loopback_stays_there(self) -> None:
        name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
        assert self.made({})[name] == "0"
        assert name not in self.made({}, head=False)
        open_head = Settings(ray=RaySettings(host="0.0.0.0"))
        assert name not in options.environment(open_head, {}, head=True, has_gpu=False)
