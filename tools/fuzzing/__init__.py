"""The parts of ``tools/fuzz.py``: what is fuzzed, and how inputs are made.

    targets.py              the table: name, check, generator, dictionary
    heads.py, fields.py, urls.py    the opening handshake
    frames.py, oracle.py    frames, alone and beside the library wsproto
    twins.py                masking, heads, frames read and written: the accelerator beside Python
    deflate.py              permessage-deflate
    envelope.py             the binary message envelope
    properties.py           what the checks share: splits, and the error of a broken promise
    mutation.py             to change an input, and to make one smaller
    random_engine.py        inputs by chance, with the standard library alone
    atheris_engine.py       inputs by coverage, with atheris
    findings.py             what an input brought to light

A check takes any bytes. It returns when the code under test kept its promises, and raises when
not: ``Broken`` for a promise of its own, or whatever undocumented exception came out. It depends
on nothing but its input, so that the bytes alone repeat a finding. A generator makes inputs that
are right, or nearly so, in the grammar of its target: from there mutation gets deep.
"""
