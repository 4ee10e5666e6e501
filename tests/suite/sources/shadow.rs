//! Shadow mode beside sources: it says which changes a source has told of.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::shop::{PATIENCE, listening, source};
use super::watch::Numbered;
use crate::support::{Client, Sidecar, eventually};

async fn report(sidecar: &Sidecar) -> Value {
    sidecar.admin_get("/shadow").await.json()["routes"][0].clone()
}

/// A change that a source told of is put down to it, be it told in time or too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1470_shadow_says_which_source_has_told_of_a_change() {
    let (app, folder) = (Numbered::start(), TempDir::new().expect("a temporary directory"));
    let file = folder.path().join("last-run");
    let rules = format!(
        "[[routes]]\npath = \"/items/{{id}}\"\nmode = \"shadow\"\nttl = \"1h\"\nscope = \
         \"public\"\ntags = [\"item:{{id}}\"]\n[[sources]]\nkind = \"file\"\nname = \"sync\"\npath \
         = \"{}\"\nevery = \"100ms\"\ntags = [\"item:{{id}}\"]\n",
        file.display()
    );
    let sidecar = Sidecar::start(app.origin.address, &rules).await;
    listening(&sidecar).await;
    let read = async || {
        let reply = Client::new(sidecar.address).get("/items/1", &[]).await;
        reply.text().parse::<i64>().expect("a number")
    };
    let told = async |text: &str, events: i64| {
        std::fs::write(&file, text).expect("the folder can be written to");
        eventually("the source has purged", PATIENCE, || async {
            let source = source(&sidecar).await;
            source["events"] == json!(events) && source["purged_tags"].as_i64() > Some(events)
        })
        .await;
    };
    let hits = async || report(&sidecar).await["would_hit"].as_i64();
    // Stored, and a hit.
    eventually("it would be a hit", PATIENCE, || async {
        read().await;
        hits().await >= Some(1)
    })
    .await;
    app.says(2);
    told("1", 1).await;
    assert_eq!(read().await, 2);
    let in_time = json!([{ "source": "sync", "in_time": 1, "late": 0 }]);
    eventually("it is put down to the source", PATIENCE, || async {
        report(&sidecar).await["sources"] == in_time
    })
    .await;
    assert_eq!(report(&sidecar).await["stale"]["count"], json!(0));
    // The new version would be a hit, and is stale before the source tells.
    let before = hits().await;
    eventually("it would be a hit again", PATIENCE, || async {
        read().await;
        hits().await > before
    })
    .await;
    app.says(3);
    assert_eq!(read().await, 3);
    eventually("nothing explains it", PATIENCE, || async {
        report(&sidecar).await["stale"]["unexplained"] == json!(1)
    })
    .await;
    told("12", 2).await;
    let late = json!([{ "source": "sync", "in_time": 1, "late": 1 }]);
    eventually("it is put down to the source, late", PATIENCE, || async {
        report(&sidecar).await["sources"] == late
    })
    .await;
    let stale = report(&sidecar).await["stale"].clone();
    assert_eq!((&stale["count"], &stale["unexplained"]), (&json!(1), &json!(0)), "{stale}");
    assert_eq!(stale["examples"][0]["source"], json!("sync"), "{stale}");
    assert!(stale["examples"][0]["told_ms_after"].is_number(), "{stale}");
    let advice = sidecar.admin_get("/shadow").await.json()["advice"].to_string();
    assert!(!advice.contains("no write through this sidecar"), "{advice}");
}
