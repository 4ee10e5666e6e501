//! Registers the counters of what goes to Redis and comes from it.

use std::sync::Arc;

use crate::app::metrics_registrar::MetricsRegistrar;
use crate::cache::store::counters::BodyForm;
use crate::proxy::Proxy;

pub(super) fn register(proxy: &Proxy) {
    let counters = &proxy.store.counters.packing;
    let registrar = MetricsRegistrar(&proxy.metrics);
    registrar.count(
        "sidecache_redis_decode_errors",
        "Values in Redis that could not be decoded as entries",
        &counters.decode_errors,
    );
    if proxy.coherence.records().is_none() {
        return;
    }
    for form in BodyForm::ALL {
        proxy.metrics.register_counter(
            "sidecache_redis_bodies_stored",
            "Bodies sent to Redis, by whether they were compressed and why not; `off`: `compress` \
             would have done so",
            &[("form", form.as_str().to_owned())],
            Arc::clone(counters.of(form)),
        );
    }
    registrar.count(
        "sidecache_redis_bodies_original_bytes",
        "Bytes of the bodies sent to Redis, before they were compressed",
        &counters.original_bytes,
    );
    registrar.count(
        "sidecache_redis_bodies_stored_bytes",
        "Bytes of the bodies sent to Redis, after they were compressed",
        &counters.stored_bytes,
    );
    registrar.count(
        "sidecache_redis_bodies_decompressed",
        "Compressed bodies read from Redis",
        &counters.decompressed,
    );
    registrar.count(
        "sidecache_redis_decompress_errors",
        "Compressed bodies in Redis that were broken, or longer than `limits.object`; each is one \
         of `sidecache_redis_decode_errors_total`",
        &counters.decompress_errors,
    );
    let spent = |name, help, micros| {
        proxy.metrics.register_micros(name, help, &[], Arc::clone(micros));
    };
    spent(
        "sidecache_redis_compress_seconds",
        "Time spent on compressing bodies for Redis",
        &counters.compress_micros,
    );
    spent(
        "sidecache_redis_decompress_seconds",
        "Time spent on reading entries with compressed bodies",
        &counters.decompress_micros,
    );
}
