"""nginx and HAProxy as processes of our own, with the page's configuration."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from compliance.deployment.page import Places, block

#: What a machine's /etc/nginx/nginx.conf has around the files of conf.d.
NGINX = """
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/conf.d/*.conf;
}}
"""
START_SECONDS = 20.0


class ProxyFailed(Exception):
    """The proxy did not start, or refused its configuration."""


def program(name: str) -> str | None:
    """Where a proxy is installed; Debian keeps them in a folder that a user's PATH may lack."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Proxy:
    """One of the two, listening with TLS at 127.0.0.1."""

    def __init__(self, name: str, places: Places) -> None:
        self.name = name
        self._places = places
        self._log = places.folder / f"{name}.out"
        self._words = self._nginx() if name == "nginx" else self._haproxy()
        self._process: subprocess.Popen[bytes] | None = None

    def _nginx(self) -> list[str]:
        places, folder = self._places, self._places.folder
        text = block("nginx", "upstream mysite", "server_name example.com")
        (folder / "conf.d").mkdir()
        (folder / "srv" / "static").mkdir(parents=True, exist_ok=True)
        (folder / "conf.d" / "mysite.conf").write_text(
            places.put(text, "nginx-port", "certificates", "site", "run")
        )
        # The workers must reach the sockets below a folder that is root's, where root runs this.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user))
        return [
            program("nginx") or "nginx",
            *("-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log")),
            *("-g", "daemon off;"),
        ]

    def _haproxy(self) -> list[str]:
        places, folder = self._places, self._places.folder
        text = places.put(block("haproxy"), "haproxy-port", "certificates", "run")
        (folder / "haproxy.cfg").write_text(text)
        return [program("haproxy") or "haproxy", "-db", "-f", str(folder / "haproxy.cfg")]

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            ProxyFailed: If it ends first, or does not listen in time; with what it wrote.
        """
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._places.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise ProxyFailed(f"{self.name} does not listen:\n{self.written()}")

    def stop(self) -> None:
        """End it and its workers."""
        if self._process is not None:
            # SIGTERM is a fast shutdown for both: the master ends its workers first.
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def written(self) -> str:
        """What it has written, its error log included."""
        logs = [self._log, self._places.folder / "nginx.log"]
        return "".join(log.read_text() for log in logs if log.exists())


def make_certificate(folder: Path) -> Path:
    """A certificate for example.com that signs itself, under the names of the page."""
    folder.mkdir()
    key, certificate = folder / "example.com.key", folder / "example.com.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=example.com"),
            *("-addext", "subjectAltName=DNS:example.com"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (folder / "example.com.haproxy.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    return certificate
