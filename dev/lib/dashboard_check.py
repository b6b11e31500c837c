"""Asks a Prometheus each query of a Grafana dashboard: `dashboard_check.py DASHBOARD PROMETHEUS_URL`.

Fails where a query is refused, or answers nothing although the worker has archived something. Owns: the queries. Does not
own: the Prometheus and the worker that it has scraped (tests/monitoring.rs)."""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request


def queries(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$connector", ".*").replace("$__rate_interval", "1m")
            yield panel["title"], query


def ask(url, query):
    address = f"{url}/api/v1/query?" + urllib.parse.urlencode({"query": query})
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
