"""Numbers about numbers: intervals, paired tests, worst groups, curves.

Numpy and statsmodels; knows no files.
"""
