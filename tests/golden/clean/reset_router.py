#!/usr/bin/env python3
"""Reset a router.

def not_this(): it is text
"""
import time

LIMIT = 5  # 秒


# Hold the button.
# 按住按钮。
@retry(3)
def hold(button, seconds=LIMIT):
    """Hold it."""

    time.sleep(seconds)

    def inner():
        return button


class Router:
    """A router."""

    def __init__(self, name):
        self.name = name

    async def reset(self):
        for step in self.steps:
            await step()
