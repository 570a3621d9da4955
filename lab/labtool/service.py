"""What a command inside the initiator guest of a pair may ask of the host: commands on the target, and the cable.

lab/guest/on-target and lab/guest/cable send one JSON line per order and get one back with "code" and "output".
"""

import json
import socket
import threading


def serve(both):
    """Answers the initiator's orders for as long as it lives."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(both.initiator.folder / "host"))
    threading.Thread(target=_answer, args=(sock, both), daemon=True).start()


def _answer(sock, both):
    with sock, sock.makefile("rwb") as stream:
        while line := stream.readline():
            try:
                answer = _obey(json.loads(line), both)
            except Exception as error:  # Whatever went wrong is the guest's to hear.
                answer = {"code": 125, "output": f"{error}\n"}
            stream.write(json.dumps(answer).encode() + b"\n")
            stream.flush()


def _obey(order, both):
    if "cable" in order:
        both.initiator.set_link(order["cable"])
        return {"code": 0, "output": ""}
    result = both.target.run(order["target"], order.get("time", 300))
    return {"code": result.code, "output": result.text}
