"""Many recordings at once: a queue worked on by processes, several GPUs or a cluster.

`recordings` finds what is to be done, `results` what is done already; `dispatch` hands the rest to
workers, which are processes of this computer (`processes`) or actors of Ray (`ray_actors`).
"""

from ros2_pose.errors import PoseError


class BatchError(PoseError):
    """A batch that cannot be worked on; the message says why and what to do."""
