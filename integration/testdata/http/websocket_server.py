# Repeats what it is told over WebSocket.
import asyncio
import sys

import websockets


async def echo(ws, path=None):
    async for message in ws:
        await ws.send(message)


async def main():
    async with websockets.serve(echo, None, int(sys.argv[1]), max_size=None):
        await asyncio.Future()


asyncio.run(main())
