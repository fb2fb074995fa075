"""Jobs on a Slurm cluster: `python launch/slurm.py train --nodes 4 --gpus-per-node 8 --config FILE`.

What it does is in `dcgan_dist/slurm/`.
"""

import sys
from pathlib import Path

try:
    from dcgan_dist.slurm.command_line import main
except ImportError as error:
    root = Path(__file__).resolve().parent.parent
    print(
        f"error: the launcher needs {error.name}: pip install -c constraints.txt -e '.[slurm]' in {root}",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
