"""``accelerate launch`` itself, with the shipped configurations: processes of one machine, and of two hosts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from proxybyte.cli import main
from proxybyte.errors import ProxyByteError
from proxybyte.hub_configs.launching import launch_config, launch_configs
from proxybyte.training.run.config_io import load_config
from proxybyte.training.train import train

BATCH = {"rows_per_step": 4, "rows_per_device": 1}
LAUNCHER = "accelerate.commands.launch"


@pytest.fixture
def alone(recipe, tmp_path, read_losses):
    config = load_config(recipe(batch=BATCH), [f"output={tmp_path / 'alone'}"])
    train(config)
    return read_losses(config.output)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("parallel", ["fsdp", pytest.param("ddp", marks=pytest.mark.slow)])
def test_processes_of_one_machine(recipe, launch, tmp_path, read_losses, alone, processes, parallel):
    launcher = (LAUNCHER, "--config_file", str(launch_config("cpu")), "--num_processes", str(processes), "-m")
    process = launch(recipe(batch=BATCH), f"compute.parallel={parallel}", launcher=launcher)
    assert process.wait(timeout=300) == 0, process.communicate()[1]
    assert read_losses(tmp_path / "run") == [pytest.approx(line, rel=2e-5) for line in alone]
    shards = list((tmp_path / "run" / "checkpoints" / "step-00000008").glob("weights/shard-*"))
    assert len(shards) == (processes if parallel == "fsdp" else 0)


HOSTS = r"""
set -e
mount -t tmpfs tmpfs /run
ip netns add first
ip netns add second
ip link add eth0 netns first type veth peer name eth0 netns second
number=1
for host in first second; do
    ip -n $host link set lo up
    ip -n $host addr add 10.77.0.$number/24 dev eth0
    ip -n $host link set eth0 up
    number=$((number + 1))
done
host() {
    ip netns exec $1 unshare --uts sh -c 'hostname "$0"; exec "$@"' $1 "$PYTHON" -m accelerate.commands.launch \
        --config_file "$CONFIG" --num_processes $PROCESSES --machine_rank $2 --main_process_ip 10.77.0.1 \
        -m proxybyte.training.train --config "$RECIPE" compute.parallel=fsdp
}
host second 1 &
second=$!
host first 0
wait $second
"""
SPACES = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def two_hosts(path: Path, config: Path, processes: int) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "eth0",
        "PYTHON": sys.executable,
        "CONFIG": str(config),
        "PROCESSES": str(processes),
        "RECIPE": str(path),
    }
    words = [*SPACES, "bash", "-c", HOSTS]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def network_spaces():
    """Skips where a user may not have networks of his own."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("unshare and ip are needed for two hosts in one machine")
    probe = (
        "mount -t tmpfs tmpfs /run && ip netns add a && ip link add eth0 netns a type veth peer name eth1 && hostname x"
    )
    tried = subprocess.run([*SPACES, "--uts", "sh", "-c", probe], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this machine gives no network name spaces: {tried.stderr.strip()}")


@pytest.mark.slow
def test_two_hosts_of_two_processes_each(recipe, tmp_path, read_losses, alone, network_spaces):
    done = two_hosts(recipe(batch=BATCH), launch_config("2x8-gpus"), 4)
    assert done.returncode == 0, done.stderr
    assert read_losses(tmp_path / "run") == [pytest.approx(line, rel=2e-5) for line in alone]
    assert len(list((tmp_path / "run" / "checkpoints" / "step-00000008").glob("weights/shard-*"))) == 4


@pytest.mark.parametrize(("name", "machines", "processes"), [("1-gpu", 1, 1), ("8-gpus", 1, 8), ("2x8-gpus", 2, 16)])
def test_shipped_configurations_are_accelerates_own(name, machines, processes):
    read = load_config_from_file(str(launch_config(name)))
    assert (read.num_machines, read.num_processes, read.use_cpu) == (machines, processes, False)
    assert read.mixed_precision == "no"  # the recipe's business


def test_every_configuration_is_listed_and_names_what_it_is_for(capsys):
    assert set(launch_configs()) == {"cpu", "1-gpu", "8-gpus", "2x8-gpus"}
    assert main(["launch", "config"]) == 0
    told = capsys.readouterr().out
    assert all(f"{name} " in told and what in told for name, what in launch_configs().items())
    assert main(["launch", "config", "8-gpus"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert yaml.safe_load(path.read_text())["num_processes"] == 8
    with pytest.raises(ProxyByteError, match="did you mean 8-gpus"):
        launch_config("8gpus")
