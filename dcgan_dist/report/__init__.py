"""One page of every figure and table of the paper beside those of runs: `python -m dcgan_dist.report RUN...`.

`paper.py` says what the paper shows and reports, `gather.py` reads what runs have left, `page.py` writes
HTML. Kept out: measuring anything.
"""
