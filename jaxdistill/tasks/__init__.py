"""What teachers are asked about: requests of items, how answers are read, and how they are scored.

A module for each kind of task. Beside what builds requests of anybody's items, most have a *world*,
items with known truth that are made from a seed, and a *script*, which answers questions about them
with a known rate of errors: with both, what a pipeline does can be held against the truth.
"""
