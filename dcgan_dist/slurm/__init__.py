"""Jobs on a Slurm cluster: what `python launch/slurm.py` does, installed with the package, so that every node
finds it.

submitit writes and submits the batch script; one srun task per rank then becomes the trainer itself, so that
signals and exit codes are the trainer's own. The script decides by the exit code: 75 is requeued, 0 and 2 end
the job, anything else is requeued a few times. A login node needs no torch. Kept out: all that a rank does.
"""
