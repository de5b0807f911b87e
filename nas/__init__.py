"""How candidates are trained, judged and searched. Knows no particular search space."""

import os

# Threads that wait for each other on cores that other programs need would spin otherwise, and a step takes up to twenty
# times as long. libgomp reads this variable when torch is imported, and every module here imports it after this line.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
