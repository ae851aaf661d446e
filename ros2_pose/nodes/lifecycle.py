"""A lifecycle node that refuses invalid transitions, and its bond to nav2's lifecycle manager."""

from __future__ import annotations

import logging

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node

log = logging.getLogger(__name__)

_HEARTBEAT_S, _HEARTBEAT_TIMEOUT_S = 0.1, 4.0  # nav2's


class RobustLifecycleNode(LifecycleNode):
    """A LifecycleNode that answers an invalid transition with success: false.

    rclpy's implementation raises from the service callback, which ends the process; nav2's
    lifecycle manager sends such requests, for example DEACTIVATE to an inactive node.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._change_state_if_valid

    def _change_state_if_valid(self, request: ChangeState.Request,
                               response: ChangeState.Response) -> ChangeState.Response:
        wanted, response.success = request.transition, False
        name = wanted.label or wanted.id
        state = self._state_machine.current_state[1]
        valid = {number: label for number, label, *_ in self._state_machine.available_transitions}
        is_valid = wanted.label in valid.values() if wanted.label else wanted.id in valid
        if not is_valid:
            choices = ", ".join(f"{label} ({number})" for number, label in valid.items())
            log.warning("transition %s is not valid in state %s: the request is refused; valid are "
                        "%s", name, state, choices or "none")
            return response
        try:
            return self._change_state(request, response)
        except Exception as error:  # raised by rcl; the node must continue
            log.error("transition %s in state %s failed: %s", name, state, error)
            return response


def bond_to_manager(node: Node):
    """Start a bond (heartbeats) to nav2's lifecycle manager; None if bondpy is not installed."""
    try:
        from bondpy.bondpy import Bond
    except ImportError as error:
        log.info("no bond to a lifecycle manager (%s): install ros-$ROS_DISTRO-bondpy, or set the "
                 "manager's bond_timeout to 0", str(error))  # the error itself holds stack frames
        return None
    bond = Bond("bond", node.get_name(), node)
    bond.heartbeat_period, bond.heartbeat_timeout = _HEARTBEAT_S, _HEARTBEAT_TIMEOUT_S
    bond.start()
    return bond
