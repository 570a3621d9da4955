"""The guest image: built from Debian packages when its inputs changed, else taken from the cache."""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from . import kernels, paths

FILES = paths.LAB / "imagefiles"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Image:
    """One finished image: a root disk and, per kernel, what QEMU needs to start it."""

    def __init__(self, folder):
        self.folder = folder
        self.root = folder / "root.img"
        self.releases = json.loads((folder / "kernels.json").read_text())

    def kernel(self, wanted="newest"):
        """The release name for "newest" or for a version prefix such as 6.12."""
        if wanted == "newest":
            return self.releases[0]
        for release in self.releases:
            if release == wanted or release.startswith((wanted + ".", wanted + "+", wanted + "-")):
                return release
        raise SystemExit(f"lab: no kernel {wanted} in the image, only {', '.join(self.releases)}")

    def boot_files(self, release):
        folder = self.folder / release
        unpacked = folder / "vmlinux"
        return unpacked if unpacked.exists() else folder / "vmlinuz", folder / "initrd"


def _packages():
    lines = (FILES / "packages").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _inputs(found):
    digest = hashlib.sha256()
    for file in sorted(FILES.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    digest.update(json.dumps([found, kernels.sources()]).encode())
    return digest.hexdigest()[:12]


def _unpack_kernel(packed, unpacked):
    """Takes the kernel proper out of a zstd-packed bzImage: starting that saves a second of emulated unpacking."""
    data = packed.read_bytes()
    start = data.find(ZSTD_MAGIC)
    if start < 0 or not shutil.which("zstd"):
        return
    result = subprocess.run(["zstd", "-dcq"], input=data[start:], capture_output=True)
    if result.stdout.startswith(b"\x7fELF"):
        unpacked.write_bytes(result.stdout)


def _build(found, final):
    started = time.time()
    paths.say(f"building the guest image in {final} (a few minutes)")
    work = pathlib.Path(tempfile.mkdtemp(prefix="build-", dir=paths.cache()))
    # mmdebstrap may work as another user id; it has to reach and write these.
    work.chmod(0o755)
    out, unpacked = work / "out", work / "kernels"
    out.mkdir()
    out.chmod(0o777)
    try:
        for kernel in found:
            paths.say("fetching kernel", kernel["release"])
            kernels.download(kernel, unpacked / kernel["release"])
        environment = dict(os.environ, KERNELS=str(unpacked), FILES=str(FILES), OUT=str(out))
        command = [
            "mmdebstrap", "--variant=minbase", "--architectures=amd64", "--format=null",
            "--include=" + ",".join(_packages()),
            '--aptopt=Apt::Install-Recommends "false"',
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            f"--customize-hook={FILES / 'finish'}",
            "trixie", "/dev/null", "-",
        ]
        subprocess.run(command, check=True, text=True, input="\n".join(kernels.sources()) + "\n", env=environment)
        for kernel in found:
            release = kernel["release"]
            packed = unpacked / release / "usr/lib/modules" / release / "vmlinuz"
            if not packed.exists():
                packed = unpacked / release / "boot" / f"vmlinuz-{release}"
            shutil.copy(packed, out / release / "vmlinuz")
            _unpack_kernel(packed, out / release / "vmlinux")
        (out / "kernels.json").write_text(json.dumps([kernel["release"] for kernel in found]))
        out.chmod(0o755)
        out.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    paths.say(f"image ready after {time.time() - started:.0f} s")


def get():
    """The image for the current inputs, built now if there is none."""
    found = kernels.resolve()
    final = paths.cache() / f"image-{_inputs(found)}"
    if not final.exists():
        with open(paths.cache() / "image.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not final.exists():
                try:
                    _build(found, final)
                except subprocess.CalledProcessError as error:
                    raise SystemExit(f"lab: the image could not be built: {error}")
                _forget_old(final)
    return Image(final)


def _forget_old(current):
    """Keeps the current image and the one before it."""
    images = sorted(paths.cache().glob("image-*"), key=lambda path: path.stat().st_mtime)
    for image in [image for image in images if image != current][:-1]:
        shutil.rmtree(image, ignore_errors=True)


def main(_arguments):
    image = get()
    print(image.folder)
    print("kernels:", *image.releases)
