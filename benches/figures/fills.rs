//! A thousand clients of one fill: how soon after the origin's first byte each gets it, and how
//! long they take if the response must not be stored.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::print;
use crate::support::child::ChildSidecar;
use crate::support::{Crowd, Origin, Reply, Response};

const THOUSAND: usize = 1_000;
const ROUTE: &str = "[[routes]]\npath = \"/a/{*rest}\"\nttl = \"1m\"\nscope = \"public\"\n";
/// How long it takes until all requests have been read.
const ARRIVE: Duration = Duration::from_millis(500);
/// How long the origin takes for a response that must not be stored.
const LATENCY: Duration = Duration::from_millis(300);

async fn sidecar(origin: &Origin) -> ChildSidecar {
    let limits = "max_connections = 4000\nmax_waiting = 0\n";
    ChildSidecar::spawn(&format!("url = \"http://{}\"\n{limits}", origin.address), ROUTE).await
}

/// Clients that share a fill, and clients that cannot.
pub async fn of_a_crowd() {
    let gate = CancellationToken::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |_| {
            let begun = Response::new().until(&gate).chunked("").piece(b"first ");
            begun.wait(Duration::from_secs(2)).piece(b"second").end()
        }
    });
    let node = sidecar(&origin).await;
    let crowd = Crowd::ask(node.address, "/a/1", THOUSAND).await;
    tokio::time::sleep(ARRIVE).await;
    gate.cancel();
    let replies = crowd.answers().await;
    let wrote = origin.record("/a/1").first_byte.expect("the origin has answered");
    let after = |reply: &Reply| reply.first_byte.expect("each got a response") - wrote;
    print("first bytes after the origin's", replies.iter().map(after).collect());

    let no_store = "Cache-Control: no-store\r\n";
    let origin =
        Origin::start(move |_| Response::new().wait(LATENCY).whole(no_store, b"mine alone"));
    let node = sidecar(&origin).await;
    // Opens the connections to the origin.
    Crowd::ask(node.address, "/b/1", THOUSAND).await.time().await;
    let names = [("/b/1", "around the cache"), ("/a/1", "at first"), ("/a/1", "known uncacheable")];
    for (path, name) in names {
        let (_, last) = Crowd::ask(node.address, path, THOUSAND).await.time().await;
        println!("a thousand responses of {LATENCY:?}, {name}: {last:?}");
    }
}
