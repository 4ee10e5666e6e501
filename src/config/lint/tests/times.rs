//! Lint of the times of a route.

use super::*;

#[test]
fn an_admission_that_outlives_the_entry() {
    let admit =
        |time: &str| with(LIST, "ttl   = \"5m\"", &format!("ttl = \"5m\"\nadmit_for = \"{time}\""));
    one(&admit("1h"), "\"1h\"", "`admit_for` is longer than `ttl`", "admit_for = \"5m\"");
    silent(&admit("5m"));
    silent(&with(LIST, "\"5m\"", "\"5s\""));
}

#[test]
fn the_times_of_redis() {
    let url = "url = \"redis://127.0.0.1\"\nsecret = \"0123456789abcdef\"";
    let redis = |keys: &str| format!("{LIST}[redis]\n{url}\n{keys}\n");
    silent(&redis(""));
    one(
        &redis("degraded_ttl = \"5m\""),
        "\"5m\"",
        "without Redis this sidecar serves for up to 5m",
        "degraded_ttl = \"2s\"",
    );
    silent(&redis("degraded_ttl = \"10s\""));
    one(
        &redis("on_redis_loss = \"bypass\"\ndegraded_ttl = \"1s\""),
        "\"1s\"",
        "no effect",
        "remove one",
    );
    one(
        &redis("deadline = \"1s\"\nlease = \"1s\""),
        "\"1s\"",
        "cannot renew a lease of 1s",
        "lease = \"4s\"",
    );
    one(&redis("lease = \"100ms\""), "\"100ms\"", "its deadline of 100ms", "lease = \"400ms\"");
    silent(&redis("deadline = \"1s\"\nlease = \"2s\""));
    one(
        &redis("rejoin_grace = \"0s\""),
        "\"0s\"",
        "what they have purged meanwhile",
        "rejoin_grace = \"1s\"",
    );
    silent(&redis("rejoin_grace = \"500ms\""));
    one(
        &redis("loss_after = \"50ms\""),
        "\"50ms\"",
        "before a call has had",
        "loss_after = \"1s\"",
    );
    silent(&redis("loss_after = \"100ms\""));
}

#[test]
fn a_ttl_that_the_time_of_day_always_ends() {
    let route = |ttl: &str| {
        format!(
            "[[routes]]\npath = \"/a\"\nscope = \"public\"\nexpires_at = \"03:00\"\nttl = {ttl}\n\
             tags = [\"a\"]\n[[purges]]\npath = \"/a\"\ntags = [\"a\"]\n"
        )
    };
    one(&route("\"2d\""), "\"2d\"", "has no effect", "remove it");
    silent(&route("\"1d\""));
}
