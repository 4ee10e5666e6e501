//! `off`, `shadow` and `on`, at a real sidecar and at one that plays.

use serde_json::Value;

use crate::support::{Client, CommandLine, Origin, Response, Sidecar};

const RULES: &str = "[[routes]]\npath = \"/a/{id}\"\nttl = \"10m\"\nscope = \"public\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_is_switched_off_and_on_by_commands() {
    let app = Origin::start(|_| Response::ok("text"));
    let sidecar = Sidecar::start(app.address, RULES).await;
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &sidecar.admin.to_string());
    let cache = async || Client::new(sidecar.address).get("/a/1", &[]).await.cache().to_owned();
    let said = line.run(&["off", "--route", "/a/{id}", "--for", "15m"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with("/a/{id}: off for 15m\n\nSWITCHED"), "{}", said.out);
    assert_eq!(said.err, "", "without Redis there are no others that may not know of it");
    assert_eq!(cache().await, "BYPASS");
    let said = line.run(&["stats"]).await;
    assert!(said.out.contains("/a/{id}: off for 14m"), "{}", said.out);
    let said = line.run(&["shadow", "--json"]).await;
    let json: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(json["switches"].as_array().map(Vec::len), Some(2), "{json}");
    let said = line.run(&["on"]).await;
    assert!(said.out.starts_with("all routes: 2 switches ended"), "{}", said.out);
    let said = line.run(&["on", "--route", "/a/{id}"]).await;
    assert_eq!((said.code, said.out.trim_end()), (0, "/a/{id}: no switch was set"));
    for _ in 0..2 {
        assert_ne!(cache().await, "BYPASS");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_switched_is_an_error_with_a_way_out() {
    let app = Origin::start(|_| Response::ok("text"));
    let sidecar = Sidecar::start(app.address, RULES).await;
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &sidecar.admin.to_string());
    for (arguments, code, why) in [
        (vec!["off", "--for", "2d"], 64, "at most 1d"),
        (vec!["off", "--for", "0s"], 64, "longer than zero"),
        (vec!["shadow", "--for", "5"], 64, "has no unit"),
        (vec!["on", "--for", "5m"], 64, "--for"),
        (vec!["off", "--route", "/a/{ix}"], 1, "did you mean /a/{id}?"),
        (vec!["on", "--route", "/a/{ix}"], 1, "did you mean /a/{id}?"),
    ] {
        let said = line.run(&arguments).await;
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{arguments:?}: {}", said.err);
        assert!(said.err.contains(why), "{arguments:?}: {}", said.err);
    }
    // What a sidecar says is shown, and never obeyed by the terminal.
    let reply = "{\"shared\":false,\"why\":\"\\u001b[2J\",\"ended\":1,\"switches\":null}";
    let admin = Origin::scripted(&[("POST /mode", 200, reply)]);
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &admin.address.to_string());
    let said = line.run(&["on"]).await;
    assert_eq!((said.code, said.out.trim_end()), (0, "all routes: 1 switch ended"));
    assert!(said.err.contains("\\u{1b}[2J") && !said.err.contains('\u{1b}'), "{}", said.err);
}
