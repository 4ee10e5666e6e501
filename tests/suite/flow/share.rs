//! `share`: a route caches for some callers, and purges for all.

use crate::support::{Client, Origin, Response, Sidecar};

fn rules(share: &str) -> String {
    format!(
        "[[routes]]\npath = \"/v/{{name}}\"\nttl = \"5m\"\nscope = \"public\"\n\
         tags = [\"v\"]\nshare = {share}\n[[purges]]\npath = \"/v\"\ntags = [\"v\"]\n"
    )
}

/// Who of 100 callers is in: their second requests are hits.
async fn callers(origin: &Origin, share: &str) -> Vec<usize> {
    let sidecar = Sidecar::start(origin.address, &rules(share)).await;
    let mut client = Client::new(sidecar.address);
    let mut found = Vec::new();
    for number in 0..100 {
        let token = format!("Bearer {number}");
        let caller = [("authorization", token.as_str())];
        client.get("/v/a", &caller).await;
        let second = client.get("/v/a", &caller).await;
        match second.cache() {
            "HIT" => found.push(number),
            other => {
                assert_eq!(other, "BYPASS");
                assert!(second.cache_status().contains("not in share"), "{second:?}");
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_higher_share_keeps_the_callers_of_a_lower_one_over_restarts() {
    let app = Origin::start(|_| Response::ok("here"));
    let (some, again, more) =
        (callers(&app, "0.3").await, callers(&app, "0.3").await, callers(&app, "0.6").await);
    assert_eq!(some, again);
    assert!((10..=50).contains(&some.len()), "{some:?}");
    assert!(some.len() < more.len() && some.iter().all(|one| more.contains(one)), "{more:?}");
    assert_eq!(callers(&app, "1.0").await.len(), 100);
    assert_eq!(callers(&app, "0.0").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_callers_outside_purge_and_are_told_apart() {
    let app = Origin::start(|_| Response::ok("here"));
    let sidecar = Sidecar::start(app.address, &rules("0.3")).await;
    let mut client = Client::new(sidecar.address);
    let (mut inside, mut outside) = (None, None);
    for number in 0..100 {
        let token = format!("Bearer {number}");
        let reply = client.get("/v/a", &[("authorization", &token)]).await;
        let place = if reply.cache() == "BYPASS" { &mut outside } else { &mut inside };
        place.get_or_insert(token);
    }
    let (inside, outside) = (inside.expect("a caller"), outside.expect("another"));
    let (inside, outside) = ([("authorization", &*inside)], [("authorization", &*outside)]);
    assert_eq!(client.get("/v/a", &inside).await.cache(), "HIT");
    assert_eq!(client.send("POST", "/v", &outside, "x").await.status, 200);
    assert_eq!(client.get("/v/a", &inside).await.cache(), "MISS");
    for (caller, words) in [(inside, "this one among them"), (outside, "and this one is not")] {
        let asked =
            serde_json::json!({ "method": "GET", "target": "/v/a", "headers": caller.to_vec() });
        let explained = sidecar.admin_ok("/explain", &asked).await.to_string();
        assert!(
            explained.contains("0.3 of the callers") && explained.contains(words),
            "{explained}"
        );
    }
    let metrics = sidecar.admin_get("/metrics").await;
    assert!(metrics.text().contains("reason=\"not_in_share\""), "{}", metrics.text());
}
