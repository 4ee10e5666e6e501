//! Registers the counters of what is coded for clients.

use std::sync::Arc;

use crate::app::metrics_registrar::MetricsRegistrar;
use crate::proxy::Proxy;
use crate::semantics::content_coding::{Coding, PlainReason};

pub(super) fn register(proxy: &Proxy) {
    let (metrics, counters) = (&proxy.metrics, &proxy.encoder.counters);
    for coding in Coding::ALL {
        let (labels, of) = ([("coding", coding.as_str().to_owned())], counters.of(coding));
        for (name, help, counter) in [
            (
                "sidecache_compress_bodies",
                "Bodies that were compressed for clients, once each, as they were stored",
                &of.bodies,
            ),
            (
                "sidecache_compress_original_bytes",
                "Bytes of the bodies compressed for clients, as the app sent them",
                &of.original_bytes,
            ),
            (
                "sidecache_compress_coded_bytes",
                "Bytes of the bodies compressed for clients, as they are stored",
                &of.coded_bytes,
            ),
        ] {
            metrics.register_counter(name, help, &labels, Arc::clone(counter));
        }
        metrics.register_micros(
            "sidecache_compress_seconds",
            "Time spent on compressing bodies for clients",
            &labels,
            Arc::clone(&of.micros),
        );
    }
    for reason in PlainReason::ALL {
        metrics.register_counter(
            "sidecache_compress_plain",
            "Bodies of routes that compress for clients, and that are stored as the app sent them, \
             by the reason",
            &[("reason", reason.as_str().to_owned())],
            Arc::clone(counters.plain(reason)),
        );
    }
    MetricsRegistrar(metrics).count(
        "sidecache_compress_missed_bytes",
        "Bytes of hits that would be smaller with `[compress]`: text in the scopes `shared` and \
         `public` that went out as it is to clients that accept a coding; an estimate",
        &counters.missed_bytes,
    );
}
