//! Mistakes in the times of a route: `ttl`, its jitter, the stale windows, `browser`.

use super::cases::route;

#[test]
fn times_of_a_route() {
    route("ttl = \"0s\"", 1, 7, "1ms to 365d");
    route("ttl = \"366d\"", 1, 7, "1ms to 365d");
    route("stale_while_revalidate = \"366d\"", 1, 26, "0s to 365d");
    route("stale_if_error = \"366d\"", 1, 18, "0s to 365d");
    route("stale_if_error = 600", 1, 18, "\"600s\"");
    route("jitter = \"30s\"", 1, 10, "add ttl");
    route("ttl = \"5m\"\njitter = \"5m\"", 2, 10, "less than the `ttl`");
    route("jitter = \"366d\"\nttl = \"365d\"", 1, 10, "less than the `ttl`");
    route("ttl = \"0s\"\njitter = \"5m\"", 1, 7, "1ms to 365d");
    route("ttl = 5\njitter = \"5m\"", 1, 7, "\"5s\"");
}

#[test]
fn a_ttl_for_each_status() {
    route("ttl = {}", 1, 7, "no status");
    route("ttl = { 200 = \"5m\", 404 = \"0s\" }", 1, 27, "1ms to 365d");
    route("ttl = { 404 = 10 }", 1, 15, "\"10s\"");
    route("ttl = { ok = \"5m\" }", 1, 9, "is not a status");
    route("ttl = { 206 = \"5m\" }", 1, 9, "a part of an exchange");
    route("ttl = { 403 = \"5m\" }", 1, 9, "the answer to one caller");
    route("ttl = { 503 = \"5m\" }", 1, 9, "stale_if_error");
    route("ttl = { 418 = \"5m\" }", 1, 9, "the word of a route");
    route("ttl = { 200 = \"5m\", 404 = \"10s\" }\njitter = \"10s\"", 2, 10, "of each status");
}

#[test]
fn what_clients_are_told() {
    route("browser = \"never\"", 1, 11, "is not a duration");
    route("browser = \"1500ms\"", 1, 11, "whole seconds");
    route("browser = \"366d\"", 1, 11, "0s to 365d");
    route("browser = 30", 1, 11, "\"30s\"");
}

#[test]
fn a_time_of_day() {
    let rejected = |value: &str, text: &str| route(&format!("expires_at = {value}"), 1, 14, text);
    rejected("\"3:00\"", "does not begin with a time");
    rejected("\"24:00\"", "from \"00:00\" to \"23:59\"");
    rejected("\"03:00 Europe/Vienna\"", "names a time zone");
    rejected("\"03:00+15:00\"", "up to 14 hours");
    rejected("3", "a string is needed");
    rejected("03:00:00", "a string is needed");
}
