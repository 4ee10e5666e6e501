//! Lint of the sections.

use super::*;

#[test]
fn everybody_is_trusted() {
    let trusted = |network: &str| format!("{LIST}[listen]\ntrusted_proxies = [\"{network}\"]\n");
    one(
        &trusted("0.0.0.0/0"),
        "\"0.0.0.0/0\"",
        "every address",
        "trusted_proxies = [\"127.0.0.1\"]",
    );
    one(&trusted("::/0"), "\"::/0\"", "every address", "trusted_proxies");
    silent(&trusted("10.0.0.0/8"));
}

#[test]
fn peers_of_a_socket_are_trusted_by_name() {
    let socket = "[listen]\naddress = \"unix:/run/s.sock\"\n";
    one(&format!("{LIST}{socket}"), "\"unix:/run/s.sock\"", "all clients are one", "[\"unix\"]");
    silent(&format!("{LIST}{socket}trusted_proxies = [\"unix\"]\nsocket_mode = \"0666\"\n"));
    one(
        &format!("{LIST}[listen]\naddress = \"127.0.0.1:1\"\ntrusted_proxies = [\"unix\"]\n"),
        "\"unix\"",
        "nothing connects by a socket",
        "name the addresses",
    );
    let mode = format!("{LIST}[listen]\nsocket_mode = \"0660\"\n");
    one(&mode, "\"0660\"", "no effect", "unix:");
}

#[test]
fn strangers_are_told_keys_and_tags() {
    let debug = |address: &str, headers: bool| {
        format!("{LIST}[listen]\naddress = \"{address}:8080\"\n[debug]\nheaders = {headers}\n")
    };
    one(&debug("0.0.0.0", true), "true", "reachable from other machines", "headers = false");
    silent(&debug("127.0.0.1", true));
    silent(&debug("0.0.0.0", false));
}

#[test]
fn no_room_for_the_apps_tags() {
    let most = |most: u8| format!("{LIST}[limits]\ntags = {most}\n");
    one(
        &most(3),
        "[\"items:{tenant}\"]",
        "these are 3 tags, and the limit is 3",
        "tags = 2048 in [limits]",
    );
    silent(&most(4));
}

#[test]
fn more_tunnels_than_leave_a_quarter_of_the_connections() {
    let limited = format!("max_connections = 100\nmax_tunnels = 90\n{LIST}");
    one(&limited, "90", "at least a quarter", "write max_tunnels = 75");
    silent(&with(&limited, "90", "75"));
    silent(&format!("max_connections = 100\n{LIST}"));
    silent(&format!("max_connections = 2\nmax_tunnels = 1\n{LIST}"));
}

#[test]
fn more_connections_of_clients_than_half_of_all() {
    // The head of every file ends within `[upstream]`.
    let limited = format!("max_connections = 100\n{LIST}[limits]\npinned = 64\n");
    one(&limited, "64", "at most half", "write pinned = 50");
    silent(&with(&limited, "64", "50"));
    silent(&format!("max_connections = 100\n{LIST}"));
    one(&format!("{LIST}[limits]\npinned = 300\n"), "300", "is 512", "write pinned = 256");
}

#[test]
fn one_client_can_have_the_longest_body_read() {
    let limits = |lines: &str| format!("{LIST}[limits]\n{lines}\n");
    silent(&limits("uploads = \"128KiB\""));
    let hint = "at least twice as large";
    one(&limits("uploads = \"127KiB\""), "\"127KiB\"", "half of `uploads` (127KiB)", hint);
    one(&limits("purge_body = \"40MiB\""), "\"40MiB\"", "up to `purge_body` (40MiB)", hint);
}

#[test]
fn a_wait_ends_before_anything_is_cut_for_it() {
    let hint = "at most half of `wait_timeout`";
    one(&format!("{LIST}[limits]\nstall = \"5s\"\n"), "\"5s\"", "never cut", hint);
    silent(&format!("{LIST}[limits]\nstall = \"4s\"\n"));
    one(&format!("wait_timeout = \"2s\"\n{LIST}"), "\"2s\"", "waits 2s", hint);
}

#[test]
fn r1362_a_redis_without_a_secret_is_warned_about() {
    let redis = |header: &str, secret: &str| {
        format!("{LIST}[redis]{header}\nurl = \"redis://127.0.0.1\"\n{secret}\n")
    };
    let hint = "secret = \"${SIDECACHE_SECRET}\"";
    one(&redis("", ""), "[redis]", "undo purges", hint);
    one(&redis("", "secret = \"${UNSET:-}\""), "[redis]", "undo purges", hint);
    silent(&redis(" # check: ok, its socket is ours alone", ""));
    silent(&redis("", "secret = \"0123456789abcdef\""));
}
