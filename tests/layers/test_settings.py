"""Where the registry finds its configuration with Django, and without."""

import subprocess
import sys


def run_python(program: str) -> str:
    """What a fresh interpreter prints, with no Django settings in its environment."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_django_nothing_is_configured_until_somebody_does() -> None:
    assert (
        run_python(
            "from channels.layers import channel_layers, get_channel_layer\n"
            "assert get_channel_layer() is None\n"
            "path = 'channels.layers.InMemoryChannelLayer'\n"
            "channel_layers.configure({'default': {'BACKEND': path}})\n"
            "print(type(get_channel_layer()).__name__)\n"
        )
        == "InMemoryChannelLayer"
    )


def test_importing_the_layers_imports_no_django_and_no_driver() -> None:
    assert (
        run_python(
            "import sys, channels.layers\n"
            "heavy = ('django', 'redis', 'aiormq', 'psycopg', 'cryptography')\n"
            "print([name for name in heavy if name in sys.modules])\n"
        )
        == "[]"
    )


def test_a_process_that_used_a_layer_ends_in_silence() -> None:
    assert (
        run_python(
            "from channels.layers import InMemoryChannelLayer\n"
            "layer = InMemoryChannelLayer()\n"
            "layer.sync.send('worker', {'type': 'x'})\n"
            "print(layer.sync.receive('worker'))\n"
        )
        == "{'type': 'x'}"
    )
