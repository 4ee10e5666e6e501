//! Metrics of the process under the names that other programs use as well. Linux tells all of them.

use std::fs;

use crate::app::metrics_registrar::as_f64;
use crate::telemetry::metrics::Metrics;

/// What is read at each scrape: its name, its help, and how it is read. Where the kernel says
/// nothing it is NaN, which Prometheus shows as a gap.
type ProcessGauge = (&'static str, &'static str, fn() -> f64);

const GAUGES: [ProcessGauge; 4] = [
    ("process_resident_memory_bytes", "Memory that the process takes, in bytes", resident_bytes),
    (
        "process_virtual_memory_bytes",
        "Addresses that the process has reserved, in bytes",
        virtual_bytes,
    ),
    ("process_open_fds", "File descriptors that are open", open_descriptors),
    ("process_max_fds", "File descriptors that may be open", max_descriptors),
];

/// Registers the metrics. `started` is the start of the process in seconds since 1970.
pub(super) fn register(metrics: &Metrics, started: f64) {
    for (name, help, read) in GAUGES {
        metrics.register_gauge(name, help, &[], read);
    }
    metrics.register_gauge(
        "process_start_time_seconds",
        "When the process started, in seconds since 1970",
        &[],
        move || started,
    );
    metrics.register_read_counter(
        "process_cpu_seconds",
        "Processor time that the process has taken, in seconds",
        cpu_seconds,
    );
}

#[allow(clippy::cast_precision_loss, reason = "a sum of seconds of processors")]
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A number of pages in `/proc/self/statm`, by its position, in bytes.
fn pages(position: usize) -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<usize> =
        statm.split_ascii_whitespace().nth(position).and_then(|pages| pages.parse().ok());
    pages.map_or(f64::NAN, |pages| as_f64(pages.saturating_mul(rustix::param::page_size())))
}

fn virtual_bytes() -> f64 {
    pages(0)
}

fn resident_bytes() -> f64 {
    pages(1)
}

fn open_descriptors() -> f64 {
    // The one that reads the folder is among them.
    fs::read_dir("/proc/self/fd").map_or(f64::NAN, |open| as_f64(open.count().saturating_sub(1)))
}

#[allow(clippy::cast_precision_loss, reason = "a limit, and not a small one")]
fn max_descriptors() -> f64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(f64::INFINITY, |limit| limit as f64)
}
