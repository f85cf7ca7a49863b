# Talks over WebSocket, then waits for the end of the connection.
import asyncio
import sys

import websockets


async def main():
    try:
        async with websockets.connect(sys.argv[1], max_size=None, open_timeout=120) as ws:
            for message in ["hello", b"\x00\x01GET /secret HTTP/1.1\r\n\r\n", "x" * 300000]:
                await ws.send(message)
                got = await ws.recv()
                if got != message:
                    sys.exit(f"got {got[:100]!r} for {message[:100]!r}")
            print("ok", flush=True)
            await ws.recv()
            sys.exit("got more than was asked for")
    except websockets.exceptions.InvalidStatusCode as e:
        print("status", e.status_code, flush=True)
    except (websockets.exceptions.ConnectionClosed, ConnectionError):
        print("closed", flush=True)


asyncio.run(main())
