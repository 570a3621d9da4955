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


def _copy_kernel(tree, release, into):
    """Takes vmlinuz out of an unpacked package, and the kernel proper out of vmlinuz: starting that saves a second of
    emulated unpacking."""
    packed = tree / "usr/lib/modules" / release / "vmlinuz"
    if not packed.exists():
        packed = tree / "boot" / f"vmlinuz-{release}"
    data = packed.read_bytes()
    (into / "vmlinuz").write_bytes(data)
    start = data.find(ZSTD_MAGIC)
    if start >= 0 and shutil.which("zstd"):
        result = subprocess.run(["zstd", "-dcq"], input=data[start:], capture_output=True)
        if result.stdout.startswith(b"\x7fELF"):
            (into / "vmlinux").write_bytes(result.stdout)


def _build(found, final):
    started = time.time()
    paths.say(f"building the guest image in {final} (a few minutes)")
    work = pathlib.Path(tempfile.mkdtemp(prefix="build-", dir=paths.cache()))
    out, unpacked = work / "out", work / "kernels"
    try:
        for kernel in found:
            release = kernel["release"]
            paths.say("fetching kernel", release)
            kernels.download(kernel, unpacked / release)
            (out / release).mkdir(parents=True)
            _copy_kernel(unpacked / release, release, out / release)
        # Without root, mmdebstrap works under another user id, which has to reach and write these.
        for folder, mode in ((work, 0o755), (out, 0o777), *((out / kernel["release"], 0o777) for kernel in found)):
            folder.chmod(mode)
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
        (out / "kernels.json").write_text(json.dumps([kernel["release"] for kernel in found]))
        for kernel in found:
            (out / kernel["release"]).chmod(0o755)
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
                for left in paths.cache().glob("build-*"):
                    shutil.rmtree(left, ignore_errors=True)
                try:
                    _build(found, final)
                except (subprocess.CalledProcessError, OSError) as error:
                    return _previous(error)
                _forget_old(final)
    return Image(final)


def _finished():
    return sorted(paths.cache().glob("image-*"), key=lambda path: path.stat().st_mtime)


def _previous(error):
    """The newest image there is, for want of a current one."""
    if not _finished():
        raise SystemExit(f"lab: the image could not be built: {error}")
    paths.say(f"the image could not be built, an OUTDATED one is used: {error}")
    return Image(_finished()[-1])


def _forget_old(current):
    """Keeps the current image and the one before it."""
    for image in [image for image in _finished() if image != current][:-1]:
        shutil.rmtree(image, ignore_errors=True)


def main(_arguments):
    image = get()
    print(image.folder)
    print("kernels:", *image.releases)
