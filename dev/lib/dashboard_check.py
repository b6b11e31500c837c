"""Asks a Prometheus each query of a Grafana dashboard: `dashboard_check.py DASHBOARD PROMETHEUS_URL`.

Fails where a query is refused, or answers nothing although the worker has archived something. Owns: the queries, and how they are asked
(dashboard_picture.py draws the answers). Does not own: the Prometheus and the worker that it has scraped (tests/monitoring.rs)."""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

# As Grafana has them for all connectors, and a data source that says nothing of its interval of 15 seconds.
VARIABLES = {"$connector": ".*", "$__rate_interval": "1m"}


def query_of(target):
    query = target["expr"]
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def queries(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], query_of(target)


def ask(url, query, path="query", **more):
    """The series that the answer has; `query_range` wants start, end and step as well."""
    address = f"{url}/api/v1/{path}?" + urllib.parse.urlencode({"query": query, **more})
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        sys.exit(f"{query}: {error.read().decode()}")


def main():
    dashboard, url = json.load(open(sys.argv[1], encoding="utf-8")), sys.argv[2]
    asked = [(title, query, ask(url, query)) for title, query in queries(dashboard)]
    empty = [f"{title}: {query}" for title, query, found in asked if not found]
    if not asked or empty:
        sys.exit("without an answer:\n" + "\n".join(empty))
    print(f"{len(asked)} queries have data")


if __name__ == "__main__":
    main()
