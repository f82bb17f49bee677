"""The parts of ``tools/bench.py``: our server beside others, under the same load.

    scenarios.py      the table of loads: name, connections, payload, what one operation is
    servers.py        the table of servers: how each is started, and what it can do
    environment.py    installs the peers and ours, compiles the generator
    peers/            a small echo server for each library, ours among them
    generator/        the load generator in C, and the conversation that it holds with load.py
    load.py           starts the generator and reads what it prints
    verify.py         one message by hand before each load: is the echo right?
    processes.py      cores, processor time and memory of processes
    compare.py        servers x scenarios, round by round
    report.py         medians, ratios, tables
    machine.py        what the figures were taken on

    idle.py           many connections that do nothing
    memory.py         what one of them holds, object by object
    fairness.py       one greedy connection beside a healthy one
    timers.py         the timer wheel beside heapq and asyncio
    startup.py        time to import, time until listening

Which figure to believe: processor time of the server for each operation. It depends far less on
what else the machine does than rates and delays do. Differences of a few percent between two
servers are noise: the column "spread" tells how far apart the rounds were.
"""
