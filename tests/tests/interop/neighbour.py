"""The Python side of the interop test: a service on the same Redis, with the library of the page.

neighbour.py URL NAMESPACE < one JSON array a line:
    ["set", key, expression, ttl or null]   sets what the expression is in Python
    ["get", key]                            prints the value as JSON
    ["delete", key], ["exists", key]        print true or false
"""

import asyncio
import json
import sys

from zenoo_rpc.cache.backends import RedisCache


async def main(url, namespace):
    cache = RedisCache(url=url, namespace=namespace, enable_fallback=False)
    await cache.connect()
    for line in sys.stdin:
        operation, key, *rest = json.loads(line)
        if operation == "set":
            expression, ttl = rest
            assert await cache.set(key, eval(expression), ttl=ttl), line
        else:
            print(json.dumps(await getattr(cache, operation)(key)))
    await cache.close()


asyncio.run(main(*sys.argv[1:]))
