"""FactWorld: a closed world of made-up facts in which it is known what a model can know, and a tiny model of it."""
