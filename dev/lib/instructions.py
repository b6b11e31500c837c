#!/usr/bin/env python3
"""Compares counts of instructions with a baseline.

usage: instructions.py COSTS BASELINE [UPDATE]     COSTS: callgrind, names not compressed; UPDATE not empty: write
"""

import json
import re
import sys

# Far above what the addresses and the seeds of hash maps change (0.8 %).
MARGIN = 0.03


def counted(path):
    """Instructions by the name of a step: what callgrind says of the call of the function measured_<name>, callees included."""
    counts, called, is_cost = {}, None, False
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("cfn="):
                # Legacy mangling, where it is not undone, puts 17h.. behind the name.
                found = re.search(r"measured_([a-z0-9]+?)(?:17h[0-9a-f]{16}E)?(?:\W|$)", line)
                called = found and found[1]
            elif line.startswith("calls="):
                is_cost = True
            elif is_cost:
                is_cost = False
                if called:
                    counts[called] = counts.get(called, 0) + int(line.split()[1])
    return counts


def main(costs, baseline, update=""):
    counts = counted(costs)
    if not counts:
        sys.exit("error: no function measured_.. was counted: is the bench stripped?")
    if update:
        with open(baseline, "w", encoding="utf-8") as file:
            json.dump(counts, file, indent=2, sort_keys=True)
            file.write("\n")
        print(f"{baseline} has {len(counts)} counts")
        return
    with open(baseline, encoding="utf-8") as file:
        before = json.load(file)
    worse = []
    print("| step | instructions | baseline | change |\n|---|---|---|---|")
    for name in sorted(before.keys() | counts.keys()):
        now, then = counts.get(name), before.get(name)
        if now is None or then is None:
            worse.append(f"{name} is {'not counted' if now is None else 'not in the baseline'}")
            continue
        change = now / then - 1
        print(f"| {name} | {now:,} | {then:,} | {change:+.1%} |")
        if change > MARGIN:
            worse.append(f"{name} takes {change:+.1%} instructions")
        elif change < -MARGIN:
            print(f"note: {name} got better; keep that with UPDATE=1")
    if worse:
        sys.exit("".join(f"\nerror: {what}" for what in worse)[1:] + f"\n(margin {MARGIN:.0%}; UPDATE=1 accepts them)")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
