"""The parts of ``tools/torture.py``, and what ``tools/soak.py`` shares with it.

    rows.py             the table of rows: name, what it shows, how long it may take
    exhaustion.py       H43, H44
    memory.py           H56, H73, H75, H86
    liveness.py         H87, H88, H90
    handshakes.py       H01, H02, and a flood of handshakes
    threads.py          H107
    leaks.py            H109
    shutdown.py         H120, H121

    served.py           the program under attack: a server of this library, and what it tells
    process.py          to start that, to ask it, and to read from /proc what it costs
    client.py           one client on a plain socket
    swarm.py            many of them in one thread
    healthy.py          clients that look at what they get, and at the time
    witness.py          one of these in a process of its own
    figures.py          figures, limits, verdicts

A row is a generator of figures. It starts servers of its own, waits for nothing without a
timeout, and raises when the server does what no server may do.
"""
