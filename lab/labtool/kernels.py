"""Finds the wanted kernels in Debian's archive and unpacks them.

A private apt state in the cache folder is used, so neither root nor the host's own sources are needed;
signatures are verified with the keys of debian-archive-keyring as always.
"""

import json
import re
import subprocess
import time

from . import paths

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
SUITES = [
    (MIRROR, "trixie"),
    (MIRROR, "trixie-updates"),
    (SECURITY, "trixie-security"),
    (MIRROR, "trixie-backports"),
]
FRESH = 24 * 3600


def sources():
    return [f"deb [signed-by={KEYRING}] {url} {suite} main" for url, suite in SUITES]


class Apt:
    """apt-get and apt-cache on a state of their own."""

    def __init__(self):
        self.dir = paths.cache() / "apt"
        for sub in ("lists/partial", "archives/partial", "parts"):
            (self.dir / sub).mkdir(parents=True, exist_ok=True)
        (self.dir / "status").touch()
        (self.dir / "sources.list").write_text("\n".join(sources()) + "\n")
        settings = {
            "Dir::Etc::sourcelist": self.dir / "sources.list",
            "Dir::Etc::sourceparts": self.dir / "parts",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": self.dir / "parts",
            "Dir::State::lists": self.dir / "lists",
            "Dir::State::status": self.dir / "status",
            "Dir::Cache": self.dir,
            "Dir::Cache::archives": self.dir / "archives",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        self.options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]

    def run(self, program, *args, **kwargs):
        return subprocess.run([program, *self.options, *args], check=True, text=True, **kwargs)

    def output(self, program, *args):
        return self.run(program, *args, stdout=subprocess.PIPE).stdout

    def update(self):
        self.run("apt-get", "-qq", "--error-on=any", "update", stdout=subprocess.DEVNULL)

    def fields(self, package, version=None):
        """Control fields of the newest (or the given) version of a package."""
        wanted = f"{package}={version}" if version else package
        text = self.output("apt-cache", "--no-all-versions", "show", wanted)
        return dict(re.findall(r"^([A-Za-z-]+): (.*)$", text, re.M))

    def versions(self, package):
        """(version, suite) of each version of a package, newest first."""
        rows = self.output("apt-cache", "madison", package).splitlines()
        return [(row.split("|")[1].strip(), row.split("|")[2]) for row in rows if "Packages" in row]


def _kernel_of(apt, version):
    """The release name behind one version of linux-image-amd64 and the packages it is made of."""
    depends = apt.fields("linux-image-amd64", version)["Depends"]
    release = re.search(r"linux-image-(\d\S*-amd64)", depends).group(1)
    packages, todo = {}, [f"linux-image-{release}"]
    while todo:
        name = todo.pop()
        if name in packages:
            continue
        packages[name] = version
        found = apt.fields(name, version)
        for text in (found.get("Depends", ""), found.get("Pre-Depends", "")):
            todo += re.findall(r"linux-(?:image|binary|modules)-" + re.escape(release), text)
    return {"release": release, "packages": packages}


def resolve():
    """The kernels for the image, newest first. Asks the archive at most once a day."""
    answer = paths.cache() / "kernels.json"
    known = json.loads(answer.read_text()) if answer.exists() else None
    if known and time.time() - answer.stat().st_mtime < FRESH:
        return known
    try:
        paths.say("looking for the newest kernels in Debian's archive")
        apt = Apt()
        apt.update()
        rows = apt.versions("linux-image-amd64")
        backport = next(version for version, suite in rows if "trixie-backports" in suite)
        stable = next(version for version, suite in rows if "trixie-backports" not in suite)
        found = [_kernel_of(apt, backport), _kernel_of(apt, stable)]
    except (subprocess.CalledProcessError, StopIteration, AttributeError, KeyError) as error:
        if not known:
            raise SystemExit(f"lab: cannot resolve kernels, and none are cached: {error}")
        paths.say("archive not reachable, keeping the kernels known so far")
        found = known
    answer.write_text(json.dumps(found, indent=1))
    return found


def download(kernel, into):
    """Unpacks the packages of one kernel into a folder."""
    into.mkdir(parents=True, exist_ok=True)
    apt = Apt()
    debs = apt.dir / "archives"
    names = [f"{name}={version}" for name, version in kernel["packages"].items()]
    apt.run("apt-get", "-qq", "download", *names, cwd=debs, stdout=subprocess.DEVNULL)
    for name in kernel["packages"]:
        (deb,) = debs.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, into], check=True)
        deb.unlink()
