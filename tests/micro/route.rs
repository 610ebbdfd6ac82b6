//! Route look-up with tables of each length. The first route of a table never matches by being first.

use std::hint::black_box;

use spooky_user::{
    dataplane::route::{HostPattern, PathPattern, Route, Rule, Table},
    id::{ClusterId, RouteId},
    telemetry::metrics::Registry,
};

use crate::stopwatch::Stopwatch;

pub(crate) fn benches(stopwatch: &mut Stopwatch) {
    for count in [1, 100, 10_000] {
        let table = table(count);
        let last = format!("service-{}.example.com", count - 1);
        for (name, host, path) in [
            ("catch-all", "www.example.org", "/bytes/1024"),
            ("host", last.as_str(), "/api/v1/things"),
            ("deep path", "www.example.org", "/a/b/c/d/e/f/g/h"),
        ] {
            stopwatch.time(&format!("route/{name}, of {count}"), || {
                table.find(black_box(host), black_box(path)).map(|route| route.id)
            });
        }
    }
}

/// `count` routes: by host, by wildcard and by path, and one for everything else.
fn table(count: u16) -> Table {
    let metrics = Registry::new(1).route("all");
    let rules = (0..count).map(|index| {
        let (hosts, path) = match index {
            0 => (Vec::new(), "/".to_owned()),
            _ if index + 1 == count || index % 3 == 0 => (
                vec![HostPattern::Exact(format!("service-{index}.example.com"))],
                "/api".to_owned(),
            ),
            _ if index % 3 == 1 => {
                (vec![HostPattern::Suffix(format!("zone-{index}.example.com"))], "/".to_owned())
            }
            _ => (Vec::new(), format!("/service-{index}/v1")),
        };
        let route = Route {
            id: RouteId(index),
            name: format!("r{index}").into(),
            cluster: ClusterId(0),
            metrics: metrics.clone(),
        };
        Rule { route, hosts, path: PathPattern::Prefix(path) }
    });
    Table::build(rules.collect()).unwrap_or_else(|twice| panic!("{twice:?}"))
}
