"""A model's process ends with the server that started it, even if all that it does is wait."""

import os
import select
import signal
import subprocess
import sys

MODEL = """
import threading
from trackserve.backend.parent import end_with_parent
end_with_parent()
print("waits", flush=True)
threading.Event().wait()
"""
SERVER = """
import subprocess, sys
model = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
model.stdout.readline()
print(model.pid, flush=True)
model.wait()
"""


def test_a_model_that_waits_forever_ends_with_its_server():
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, MODEL], stdout=subprocess.PIPE, text=True
    ) as server:
        model = os.pidfd_open(int(server.stdout.readline()))
        assert select.select([model], [], [], 0)[0] == []
        server.send_signal(signal.SIGKILL)
    assert select.select([model], [], [], 30)[0]
    os.close(model)
