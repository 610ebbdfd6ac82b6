//! From cells to Prometheus text: a [`prometheus::core::Collector`] that sums the shards when it is asked. Imports only its
//! siblings. Runs on the control plane; allocates as it likes.

use std::collections::BTreeMap;
use std::fmt;

use prometheus::proto;

use super::counter::{Counter, Counters, Gauge, Labelled};
use super::histogram::Histogram;
use crate::telemetry::reason::Reason;

/// Something that knows numbers which no worker counts: the kernel's counters, the process, build and configuration.
/// Asked at each scrape, on the control plane's thread; must be quick and must not block.
pub trait Source: Send + Sync {
    /// Adds its samples. A name keeps one type, one help text and one set of label names.
    fn collect(&self, samples: &mut Samples);
}

impl<F: Fn(&mut Samples) + Send + Sync> Source for F {
    fn collect(&self, samples: &mut Samples) {
        self(samples);
    }
}

/// Metric families being filled for one scrape.
#[derive(Default)]
pub struct Samples {
    families: BTreeMap<String, Family>,
}

struct Family {
    help: String,
    kind: proto::MetricType,
    metrics: Vec<proto::Metric>,
}

/// A cell type that can be summed over shards and rendered.
pub(super) trait Rendered: Sized {
    /// Adds the sum of `parts` under `spooky_<field>`.
    fn render(field: &str, help: &str, parts: &[&Self], samples: &mut Samples);
}

// === impl Samples ===

impl Samples {
    /// Adds a counter. `name` ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.counter_f64(name, help, labels, value as f64);
    }

    /// Adds a counter that is not whole, such as seconds of CPU time.
    pub fn counter_f64(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        let mut metric = metric(labels);
        metric.set_counter(counter);
        self.push(name, help, proto::MetricType::COUNTER, metric);
    }

    /// Adds a gauge.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut metric = metric(labels);
        metric.set_gauge(gauge);
        self.push(name, help, proto::MetricType::GAUGE, metric);
    }

    /// Adds the sum of histograms that have the same bounds.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        parts: &[&Histogram],
    ) {
        let Some(first) = parts.first() else { return };
        let mut counts = vec![0_u64; first.bounds().len() + 1];
        for part in parts {
            for (sum, count) in counts.iter_mut().zip(part.buckets()) {
                *sum += count;
            }
        }
        let mut cumulative = 0;
        let buckets = first.bounds().iter().zip(&counts).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound as f64 / 1e9);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(parts.iter().map(|part| part.sum_seconds()).sum());
        let mut metric = metric(labels);
        metric.set_histogram(histogram);
        self.push(name, help, proto::MetricType::HISTOGRAM, metric);
    }

    /// Adds counters whose labels are known only once counted.
    pub fn labelled(
        &mut self,
        name: &str,
        help: &str,
        key: &str,
        labels: &[(&str, &str)],
        parts: &[&Labelled],
    ) {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (label, count) in parts.iter().flat_map(|part| part.values()) {
            *sums.entry(label).or_default() += count;
        }
        for (label, sum) in sums {
            let mut labels = labels.to_vec();
            labels.push((key, label));
            self.counter(name, help, &labels, sum);
        }
    }

    fn push(&mut self, name: &str, help: &str, kind: proto::MetricType, metric: proto::Metric) {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.to_owned(),
            kind,
            metrics: Vec::new(),
        });
        debug_assert_eq!(family.kind, kind, "{name} has two types");
        if family.kind == kind {
            family.metrics.push(metric);
        }
    }

    pub(super) fn into_families(self) -> Vec<proto::MetricFamily> {
        let families = self.families.into_iter().map(|(name, family)| {
            let mut out = proto::MetricFamily::default();
            out.set_name(name);
            out.set_help(family.help);
            out.set_field_type(family.kind);
            out.set_metric(family.metrics);
            out
        });
        families.collect()
    }
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.families.keys()).finish()
    }
}

fn metric(labels: &[(&str, &str)]) -> proto::Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    proto::Metric::from_label(pairs.collect())
}

// === impl Rendered ===

impl Rendered for Counter {
    fn render(field: &str, help: &str, parts: &[&Self], samples: &mut Samples) {
        let sum = parts.iter().map(|part| part.value()).fold(0, u64::wrapping_add);
        samples.counter(&format!("spooky_{field}_total"), help, &[], sum);
    }
}

impl Rendered for Gauge {
    fn render(field: &str, help: &str, parts: &[&Self], samples: &mut Samples) {
        let sum: i64 = parts.iter().map(|part| part.value()).sum();
        samples.gauge(&format!("spooky_{field}"), help, &[], sum as f64);
    }
}

impl Rendered for Histogram {
    fn render(field: &str, help: &str, parts: &[&Self], samples: &mut Samples) {
        samples.histogram(&format!("spooky_{field}"), help, &[], parts);
    }
}

impl<R: Reason> Rendered for Counters<R> {
    fn render(field: &str, help: &str, parts: &[&Self], samples: &mut Samples) {
        let name = format!("spooky_{field}_total");
        for reason in R::ALL {
            let sum = parts.iter().map(|part| part[*reason].value()).fold(0, u64::wrapping_add);
            samples.counter(&name, help, &[("reason", reason.label())], sum);
        }
    }
}

impl Rendered for Labelled {
    fn render(field: &str, help: &str, parts: &[&Self], samples: &mut Samples) {
        samples.labelled(&format!("spooky_{field}_total"), help, "kind", &[], parts);
    }
}
