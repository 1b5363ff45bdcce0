"""What runs jobs elsewhere: processes of this machine, Slurm, Ray. Nothing here knows what a job does."""
