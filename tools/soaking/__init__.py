"""The parts of ``tools/soak.py``; servers, clients and figures are those of ``torturing``.

actors.py       the clients: healthy, slow, silent, restless, malicious, and those that come back
killers.py      processes full of clients that are killed
samples.py      what is measured while it runs, and what must be true at the end
"""
