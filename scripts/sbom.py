"""Write the software bill of materials of an unpacked image: CycloneDX 1.6, JSON, from its files.

    .venv/bin/python scripts/sbom.py ROOT > topthree.cdx.json

Python packages are listed by cyclonedx-py from the image's virtual environment; Debian packages come from dpkg's own
list, the models from their manifests. The result is checked against the schema. `make image-check` runs this.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

OURS = "opt/topthree"


def list_python_packages(root: Path) -> Bom:
    """List the installed Python packages and our own: name, version, licence and dependencies of each."""
    folders = [*sorted((root / OURS).glob("venv/lib/python3.*/site-packages")), root / OURS]
    with tempfile.TemporaryDirectory() as work:
        # cyclonedx-py asks an interpreter for its path. The image's own may not run here, but its path is known.
        interpreter = Path(work) / "python"
        interpreter.write_text(f"#!/bin/sh\necho {shlex.quote(json.dumps([str(folder) for folder in folders]))}\n")
        interpreter.chmod(0o755)
        command = [Path(sys.executable).with_name("cyclonedx-py"), "environment", interpreter]
        listed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return Bom.from_json(json.loads(listed))


def list_debian_packages(root: Path) -> Iterator[Component]:
    """List the installed Debian packages, from dpkg's list."""
    release = read_release(root)
    distribution = f"{release['ID']}-{release.get('VERSION_ID', 'testing')}"
    yield Component(type=ComponentType.OPERATING_SYSTEM, name=release["ID"], version=release.get("VERSION_ID"))
    for package in read_stanzas(root / "var/lib/dpkg/status"):
        if package["Status"] == "install ok installed":
            name, version, architecture = package["Package"], package["Version"], package["Architecture"]
            place = {"arch": architecture, "distro": distribution}
            yield Component(
                name=name,
                version=version,
                bom_ref=f"deb:{name}:{architecture}=={version}",
                supplier=OrganizationalEntity(name=package["Maintainer"]),
                description=package["Description"].partition("\n")[0],
                purl=PackageURL("deb", release["ID"], name, version, place),
            )


def list_models(root: Path) -> Iterator[Component]:
    """List the prepared models; the digest is that of the weights they were made from."""
    for manifest in sorted((root / OURS).glob("cache/**/manifest.json")):
        model = json.loads(manifest.read_text(encoding="utf-8"))
        digest = model["weights_sha256"]
        yield Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            name=model["name"],
            version=digest[:16],
            bom_ref=f"model:{manifest.parent.name}",
            description=f"Prepared in {model['precision']} with OpenVINO {model['versions']['openvino']}.",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )


def list_other_python(root: Path) -> Iterator[Component]:
    """List the interpreter if it is not Debian's, as in Docker's python images."""
    if (root / "usr/local/bin/python3").exists():
        settings = (root / OURS / "venv/pyvenv.cfg").read_text(encoding="utf-8")
        version = re.search(r"^version = ([\d.]+)", settings, re.MULTILINE)[1]
        purl = PackageURL("generic", None, "cpython", version)
        yield Component(type=ComponentType.PLATFORM, name="cpython", version=version, purl=purl)


def read_stanzas(status: Path) -> Iterator[Message]:
    """Read dpkg's list of packages, one stanza of `Field: value` lines each."""
    for stanza in status.read_text(encoding="utf-8").strip().split("\n\n"):
        yield HeaderParser().parsestr(stanza)


def read_release(root: Path) -> dict[str, str]:
    """Return the distribution of the image, and its version."""
    lines = (root / "etc/os-release").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: shlex.split(value)[0] if value else "" for key, _, value in pairs}


def make_bom(root: Path) -> Bom:
    """Put everything together: the image depends on all components, and each package on those that it names."""
    bom = list_python_packages(root)
    own = next(component for component in bom.components if component.name == "topthree")
    for components in (list_debian_packages, list_models, list_other_python):
        bom.components.update(components(root))
    image = Component(type=ComponentType.CONTAINER, name="topthree", version=own.version, bom_ref="image")
    bom.metadata.component = image
    bom.register_dependency(image, bom.components)
    return bom


def main(arguments: list[str]) -> int:
    """Print the bill of materials of the image unpacked at the one argument."""
    if len(arguments) != 1 or not (Path(arguments[0]) / OURS).is_dir():
        sys.stderr.write(f"{__doc__}\nROOT is the folder into which the image was unpacked.\n")
        return 2
    bom = make_bom(Path(arguments[0]))
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        sys.stderr.write(f"The bill of materials does not fit its schema: {problem}\n")
        return 1
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
