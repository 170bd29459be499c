"""Does a model copy its training images? Distances to them, what real held-out images keep, and a verdict.

``gate(generated, train, held, features)`` measures, ``Memorisation.write(folder)`` stores, ``read(folder)`` reads back.
"""
