"""Quality of service: subscriptions that follow the reliability that publishers offer.

A reliable subscription never matches a best-effort publisher, and a best-effort subscription loses
most large images of a reliable publisher. Therefore the offers are read repeatedly (as
`ros2 topic echo` does once), and the subscription is recreated when they change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

__all__ = ["LOG_INTERVAL_S", "MatchedSubscription", "PublisherEventCallbacks"]

LOG_INTERVAL_S = 5.0  # least time between two equal warnings
_QUEUE_DEPTH = 5  # callbacks only store, so the queue never fills
_POLICIES = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


class MatchedSubscription:
    """Subscription of one topic with the reliability that its publishers offer.

    Attributes:
        policy: reliability of the current subscription.
        incompatible: why the last incompatible publisher cannot be received; empty if all match.
    """

    def __init__(self, node: Node, message_type: type, topic: str, callback: Callable,
                 reliability: str):
        """Subscribe.

        Args:
            topic: full name.
            reliability: "reliable", "best_effort", or "auto" to follow the publishers.
        """
        self.node, self.topic = node, topic
        self.policy: ReliabilityPolicy | None = None
        self.incompatible = ""
        self._message_type, self._callback = message_type, callback
        self._reliability = reliability
        self._subscription: Any = None
        self.match()

    def match(self) -> None:
        """Recreate the subscription if the publishers' offers ask for another reliability."""
        policy = self._policy_to_use()
        if policy == self.policy:
            return
        self.close()
        self.policy, self.incompatible = policy, ""
        self._subscription = self.node.create_subscription(
            self._message_type, self.topic, self._callback,
            QoSProfile(depth=_QUEUE_DEPTH, reliability=policy),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible))

    def close(self) -> None:
        """Destroy the subscription."""
        if self._subscription is not None:
            self.node.destroy_subscription(self._subscription)
            self._subscription = None

    def offers(self) -> list[ReliabilityPolicy]:
        """Reliability that each publisher of the topic offers."""
        publishers = self.node.get_publishers_info_by_topic(self.topic)
        return [info.qos_profile.reliability for info in publishers]

    def describe_reliability(self) -> str:
        """What the publishers offer and what is requested, for a warning."""
        offered = ", ".join(offer.name.lower() for offer in self.offers()) or "nothing"
        return f"its publishers offer {offered}, the subscription requests {self.policy_name}"

    @property
    def policy_name(self) -> str:
        """Reliability of the current subscription in lower case."""
        assert self.policy is not None  # set by `match` in __init__
        return self.policy.name.lower()

    def _on_incompatible(self, event) -> None:
        policy_kind = QoSPolicyKind(event.last_policy_kind).name.lower()
        self.incompatible = (f"a publisher of {self.topic} has an incompatible {policy_kind}: "
                             f"{self.describe_reliability()}; set the parameter reliability to "
                             "auto")
        if self._reliability != "auto":  # with auto, the next `match` resolves it
            self.node.get_logger().warning(self.incompatible,
                                           throttle_duration_sec=LOG_INTERVAL_S)

    def _policy_to_use(self) -> ReliabilityPolicy:
        if self._reliability != "auto":
            return _POLICIES[self._reliability]
        offers = self.offers()
        if not offers:
            return self.policy or ReliabilityPolicy.BEST_EFFORT  # compatible with all publishers
        if all(offer == ReliabilityPolicy.RELIABLE for offer in offers):
            return ReliabilityPolicy.RELIABLE
        return ReliabilityPolicy.BEST_EFFORT
