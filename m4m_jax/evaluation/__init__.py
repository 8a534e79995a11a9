"""Judging music: metrics by task, and the reports that hold them.

Metrics are functions of numpy arrays and NoteTables, a module for each family; `catalogue` lists
what they are called. Songs and samples are paired, scored, summed up and shown, in that order.
"""
