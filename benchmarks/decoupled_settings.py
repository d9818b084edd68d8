"""The settings of an edge and its worker: as the others', with a layer that spans processes."""

import json
import os

from benchmarks.settings import *  # noqa: F403 - what the server in one process has

ASGI_APPLICATION = "benchmarks.asgi.application"
CHANNEL_LAYERS = {"default": json.loads(os.environ["BENCHMARK_LAYER"])}
