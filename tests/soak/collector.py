"""A collector in a process of its own: says its endpoint, and takes spans until its input closes.

At the end it says how many it took.
"""

import sys

from tests.doubles.otlp_receiver import OtlpReceiver

if __name__ == "__main__":
    with OtlpReceiver() as receiver:
        print(receiver.endpoint, flush=True)
        sys.stdin.read()
        print(len(receiver.spans), flush=True)
