# Asks a server by http.client and by requests, and says what went wrong.
import hashlib
import http.client
import sys

import requests

host, port = sys.argv[1], int(sys.argv[2])


def check(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, want {want!r}")


c = http.client.HTTPConnection(host, port, timeout=120)
for i in range(3):
    c.request("GET", f"/public/{i}")
    r = c.getresponse()
    check("GET", (r.status, r.read()), (200, f"/public/{i} \n".encode()))
    c.request("GET", "/secret")
    r = c.getresponse()
    check("denied", (r.status, r.read()), (403, b"Access denied\r\n"))
c.request("POST", "/public/chunks", body=(b"x" * 1000 for _ in range(100)), encode_chunked=True,
          headers={"Transfer-Encoding": "chunked"})
check("chunks", c.getresponse().read(), b"/public/chunks \n")
c.request("HEAD", "/public/head")
r = c.getresponse()
check("HEAD", (r.status, r.read()), (200, b""))
sock = c.sock
c.request("GET", "/public/last", headers={"Connection": "close"})
check("last", (c.getresponse().read(), sock is not None), (b"/public/last \n", True))

name = f"[{host}]" if ":" in host else host
s = requests.Session()
base = f"http://{name}:{port}"
check("requests", s.get(base + "/public/a%20b?x=%2F").text, "/public/a b \n")
check("requests, denied", s.get(base + "/secret").status_code, 403)
body = b"y" * 100000
check("requests, body", s.post(base + "/public/body", data=body).headers["X-Sum"], hashlib.sha256(body).hexdigest())
print("ok")
