#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the lanes of a prediction service lose to each other, by simulation: how many images a second so many lanes answer,
as a part of so many times what one lane does.

Each client has one query of one image under way and draws its lane, each lane takes batches of what waits as the servers do,
filled up to a power of two, and has processors of its own at all three servers. A batch takes --batch-ms, and each of
its images --image-ms; only their ratio matters.
"""
import argparse
import heapq
import random


def images_a_second(lanes, clients, arguments, seconds=20.0):
    rng = random.Random(1)
    waiting, busy, ends = [0] * lanes, [False] * lanes, []
    now, done = 0.0, 0

    def begin(lane):
        count = min(waiting[lane], arguments.max_batch)
        if count == 0 or busy[lane]:
            return
        waiting[lane] -= count
        busy[lane] = True
        size = 1 << (count - 1).bit_length()
        heapq.heappush(ends, (now + (arguments.batch_ms + arguments.image_ms * size) / 1000, lane, count))

    def ask(count):
        asked = [rng.randrange(lanes) for _ in range(count)]
        for lane in asked:
            waiting[lane] += 1
        for lane in asked:  # an idle lane waits for those that come together
            begin(lane)

    ask(clients)
    while now < seconds:
        now, lane, count = heapq.heappop(ends)
        busy[lane] = False
        done += count
        ask(count)
        begin(lane)
    return done / now


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-ms", type=float, default=5)
    parser.add_argument("--image-ms", type=float, default=1)
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--clients", type=int, nargs="+", default=[4, 16, 48, 100], help="for each lane")
    parser.add_argument("--lanes", type=int, nargs="+", default=[2, 8, 64])
    arguments = parser.parse_args()
    print("| clients a lane |" + "".join(f" {lanes} lanes |" for lanes in arguments.lanes))
    print("|---|" + "---|" * len(arguments.lanes))
    for clients in arguments.clients:
        one = images_a_second(1, clients, arguments)
        parts = [images_a_second(lanes, clients * lanes, arguments) / (lanes * one) for lanes in arguments.lanes]
        print(f"| {clients} |" + "".join(f" {100 * part:.0f} % |" for part in parts))


if __name__ == "__main__":
    main()
