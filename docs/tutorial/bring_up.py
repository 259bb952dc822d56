# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Configures and activates a running egomotion_node, as `ros2 lifecycle set` would."""

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import rclpy

rclpy.init()
node = rclpy.create_node('bring_up')
client = node.create_client(ChangeState, 'egomotion_node/change_state')
if not client.wait_for_service(20.0):
    raise SystemExit('no egomotion_node here')
for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
    request = ChangeState.Request(transition=Transition(id=number))
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=60.0)
    if not future.done() or not future.result().success:
        raise SystemExit('egomotion_node refused; its own terminal says why')
print('egomotion_node is active')
