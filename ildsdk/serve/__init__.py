"""The resident form: one warm process that answers queries over HTTP on this machine.

    client --socket or 127.0.0.1--> app (guard, routes) --admit--> queue --thread--> Retriever

The server needs the extra ``serve`` (starlette, uvicorn, prometheus-client); importing this package
or its client loads none of them.
"""
