"""The options of one random folder.

An option is declared where it is used: `o("pooling", "mean", "cls", "max")` gives the default or, now and then, one of the
others. Each option has its own random stream out of the seed and its name, so that one can be switched back to its default
while all the others stay as they are: that is how a difference is traced to the options that make it.
"""
import json
import random


DEFAULT = "the default"  # forces an option to its default, whatever that is beside the others


class Options:
    every = {}  # name → values that can be drawn, as JSON

    def __init__(self, seed, rate=None, forced=None):
        self.seed = seed
        self.rate = random.Random(f"{seed}/rate").choice([0.02, 0.06, 0.06, 0.15]) if rate is None else rate
        self.forced = forced or {}
        self.taken, self.defaults = {}, {}

    def __call__(self, name, default, *others, rate=None):
        values = self.every.setdefault(name, set())
        values.update(json.dumps(v) for v in others)
        self.defaults[name] = default
        if name in self.forced:
            value = default if self.forced[name] == DEFAULT else self.forced[name]
        else:
            rng = random.Random(f"{self.seed}/{name}")
            change = self.rate and rng.random() < (self.rate if rate is None else rate)  # rate 0: only what is forced
            value = rng.choice(others) if change and others else default
        if value != default:
            self.taken[name] = value
        return value

    def rng(self, name):
        return random.Random(f"{self.seed}/{name}")
