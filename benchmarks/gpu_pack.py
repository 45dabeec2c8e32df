"""Pack what ``gpu.sh`` needs on a machine without a network into one folder: wheels, data and a policy.

    bash benchmarks/gpu_pack.sh --data data/square_ph.hdf5 --can checkpoints/bc/can/policy.safetensors --output gpu_pack

The machine is expected to have ``BASE`` and what that needs; the pack carries the rest, in the versions installed here,
for ``--python`` on x86-64 Linux. Of robosuite it carries the code and the files that the models of the tasks refer to.
The pack is checked before the command ends: every requirement of every wheel is met by another one or by ``BASE``,
every wheel is made for that Python, and all of it is small enough to be carried.
"""

import argparse
import base64
import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from envs.tasks import DEFAULT_OBS_KEYS, default_env_args
from policies import DiffusionPolicy

BASE = ("torch", "lightning", "numba", "scipy", "h5py", "safetensors", "rich", "tensorboard", "matplotlib")
CARRIED: tuple[str, ...] = ("jsonargparse", "docstring-parser", "typeshed-client", "stable-baselines3", "gymnasium")
CARRIED += ("mujoco", "robosuite", "pytest", "pytest-timeout")
# What robosuite asks for without a need here: a window and a keyboard.
DROPPED = ("opencv-python", "pynput")
PLATFORM = "x86_64-manylinux_2_28"
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
LIMIT = 48 * 2**20  # bytes; 64 MiB may be carried, the working tree's 15 included
# robosuite imports OpenCV, 50 MB, for a window that is never opened here: in the pack this file goes without.
WINDOW, ITS_IMPORT = "robosuite/utils/opencv_renderer.py", b"import cv2\r\n"


def closure(requirements: Iterable[str], python: str) -> dict[str, str]:
    """Name -> version of all that ``requirements`` need on the target, as uv resolves them."""
    overrides = "\n".join(f'{name} ; python_version < "3"' for name in DROPPED)  # never true: not installed
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "overrides.txt").write_text(overrides)
        line = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate"]
        line += ["--python-version", python, "--python-platform", PLATFORM, "--override", f"{folder}/overrides.txt"]
        answer = subprocess.run(
            line, input="\n".join(requirements), text=True, capture_output=True, cwd=folder, check=False
        )
    if answer.returncode:
        raise SystemExit(f"no set of versions fits Python {python}:\n{answer.stderr}")
    pins = (line.split(" ;")[0].split("==") for line in answer.stdout.splitlines() if "==" in line)
    return {canonicalize_name(name): version.strip() for name, version in pins}


def carried_versions(python: str) -> tuple[dict[str, str], set[str]]:
    """What the pack must hold, with versions (those installed here), and the names that the machine has."""
    base = set(closure(BASE, python))
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in CARRIED]
    everything = closure([*BASE, *wanted], python)
    return {name: version for name, version in everything.items() if name not in base}, base


def download(versions: Mapping[str, str], python: str, folder: Path) -> None:
    """Fetch the wheels for the target, each by itself."""
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    line += ["--python-version", python, "--implementation", "cp"]
    for platform in PLATFORMS:
        line += ["--platform", platform]
    subprocess.run([*line, *(f"{name}=={version}" for name, version in versions.items())], check=True)


def model_files(package: Path) -> set[Path]:
    """Files below ``package`` that building and resetting the three tasks opens or that their models refer to."""
    opened: set[Path] = set()

    def note(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and isinstance(args[0], str) and args[0].startswith(str(package)):
            opened.add(Path(args[0]))

    sys.addaudithook(note)
    from envs.robosuite_env import RobosuiteEnv

    for task in ("lift", "can", "square"):
        env = RobosuiteEnv(default_env_args(task))
        env.reset(seed=0)
        opened.update(Path(name).resolve() for name in re.findall(r'file="([^"]+)"', env.model_file()))
        env.close()
    return {path for path in opened if path.is_file() and package in path.parents and "__pycache__" not in path.parts}


def slim_robosuite(folder: Path) -> Path:
    """Write a wheel of the installed robosuite: its code, the tasks' model files, and no window."""
    distribution = importlib.metadata.distribution("robosuite")
    root = Path(str(distribution.locate_file(""))).resolve()
    package = root / "robosuite"
    needed = model_files(package)
    files = {path for path in package.rglob("*.py")} | needed | set((package / "controllers/config").glob("*.json"))
    info = root / f"robosuite-{distribution.version}.dist-info"
    target = folder / f"robosuite-{distribution.version}-py3-none-any.whl"
    members = {str(path.relative_to(root)): path.read_bytes() for path in [*files, info / "METADATA", info / "WHEEL"]}
    assert ITS_IMPORT in members[WINDOW]
    members[WINDOW] = members[WINDOW].replace(ITS_IMPORT, b"")
    write_wheel(target, members, info.name)
    return target


def write_wheel(target: Path, members: Mapping[str, bytes], info: str) -> None:
    """A wheel of ``members``, path -> content; ``info`` is its .dist-info folder."""
    record = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for name, content in sorted(members.items()):
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            wheel.writestr(name, content)
            record.append(f"{name},sha256={digest},{len(content)}")
        wheel.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))


def pack_data(source: Path, target: Path) -> None:
    """Copy a Robomimic file as float32 observations (the default keys) and actions; masks and header stay."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        if "mask" in old:
            old.copy("mask", new)
        data = new.create_group("data")
        data.attrs.update(old["data"].attrs)
        for name, demonstration in old["data"].items():
            for key in ("actions", *(f"obs/{key}" for key in DEFAULT_OBS_KEYS)):
                values = np.asarray(demonstration[key], np.float32)
                data.create_dataset(f"{name}/{key}", data=values, compression="gzip", shuffle=True)


def target_tags(python: str) -> set[Tag]:
    """The wheels that ``python`` (such as 3.12) takes on the target."""
    version = tuple(int(part) for part in python.split("."))
    interpreter = f"cp{version[0]}{version[1]}"
    abis = [interpreter, "abi3", "none"]
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    return {*cpython_tags(version, abis, platforms), *compatible_tags(version, interpreter, platforms)}


def problems(pack: Path, python: str, base: set[str]) -> list[str]:
    """What would keep the wheels of ``pack`` from working together on the target; empty where nothing would."""
    wheels = sorted((pack / "wheels").glob("*.whl"))
    names = {parse_wheel_filename(wheel.name)[0]: wheel for wheel in wheels}
    found = [f"{wheel.name}: two wheels of one package" for wheel in wheels if wheel not in names.values()]
    tags = target_tags(python)
    environment = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": "x86_64"}
    environment |= {"sys_platform": "linux", "platform_system": "Linux", "extra": ""}
    for wheel in wheels:
        if not parse_wheel_filename(wheel.name)[3] & tags:
            found.append(f"{wheel.name}: not for Python {python} on x86-64")
        for requirement in requirements_of(wheel):
            if requirement.marker is not None and not requirement.marker.evaluate(environment):
                continue
            name = canonicalize_name(requirement.name)
            if name in names:
                version = parse_wheel_filename(names[name].name)[1]
                if not requirement.specifier.contains(version, prereleases=True):
                    found.append(f"{wheel.name} needs {requirement}, the pack has {version}")
            elif name not in base and name not in DROPPED:
                found.append(f"{wheel.name} needs {requirement}, which is neither packed nor on the machine")
    size = sum(path.stat().st_size for path in pack.rglob("*") if path.is_file())
    if size > LIMIT:
        found.append(f"the pack has {size / 2**20:.1f} MiB: at most {LIMIT / 2**20:.0f} can be carried")
    return found


def requirements_of(wheel: Path) -> list[Requirement]:
    """``Requires-Dist`` of a wheel."""
    with zipfile.ZipFile(wheel) as content:
        name = next(n for n in content.namelist() if n.endswith(".dist-info/METADATA"))
        lines = content.read(name).decode().split("\n\n")[0].splitlines()
    return [Requirement(line.partition(":")[2]) for line in lines if line.startswith("Requires-Dist:")]


def main() -> None:
    """Make the pack, check it, list it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Robomimic's Square ph, low-dim")
    parser.add_argument("--can", type=Path, required=True, help="a Can policy (.safetensors) to steer")
    parser.add_argument("--python", default="3.12", help="the machine's Python")
    parser.add_argument("--output", type=Path, required=True, help="the folder to make; must not exist")
    args = parser.parse_args()
    DiffusionPolicy.load(args.can)
    wheels = args.output / "wheels"
    wheels.mkdir(parents=True)
    versions, base = carried_versions(args.python)
    slim_robosuite(wheels)
    download({name: version for name, version in versions.items() if name != "robosuite"}, args.python, wheels)
    pack_data(args.data, args.output / "square_ph.hdf5")
    shutil.copyfile(args.can, args.output / "can.safetensors")
    for path in sorted(path for path in args.output.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>10}  {path.relative_to(args.output)}")
    if found := problems(args.output, args.python, base):
        raise SystemExit("\n".join(["this pack would not work:", *found]))
    print(f"{args.output}: complete for Python {args.python}; carry it beside the checkout")


if __name__ == "__main__":
    main()
