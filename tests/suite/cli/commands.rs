//! The commands that ask a running sidecar: what they send, what they show, and how they exit. The
//! admin listener here answers by a script, so that every answer there is can be given.

use serde_json::{Value, json};

use crate::support::command::Said;
use crate::support::{CommandLine, Origin};

const STATS: &str = r#"{
 "version":"0.1.0","commit":"8658b63a1b2c4d5e6f70","started_ms":1000,"now_ms":65000,"uptime_s":64.0,"mode":"on",
 "totals":{"requests":{"HIT":80,"STALE":0,"REVALIDATED":0,"MISS":20,"BYPASS":12},"hit_ratio":0.8,"hit_ratio_all":0.714,"app_requests":32,"app_requests_saved":80,
  "time_saved_s":3.28,"bytes_from_cache":2048000,"bytes_from_app":4096,"bytes_from_sidecar":512,"latency":{"hit":null,"miss":null,"app":null}},
 "routes":[{"path":"/api/v1/campaigns","line":42,"mode":"on","scope":"shared","ttl_s":300,
  "freshness":{"decided_by":"origin_else_ttl","last_s":60,"last_from":"origin"},"hit_ratio_all":0.714,
  "requests":{"HIT":80,"STALE":0,"REVALIDATED":0,"MISS":20,"BYPASS":12},"hit_ratio":0.8,"app_requests_saved":80,"time_saved_s":3.28,
  "bytes_from_cache":2048000,"bytes_from_app":4096,"learned_headers":["user-agent","dnt"],
  "latency":{"hit":{"count":80,"mean_ms":0.05,"p50_ms":0.042,"p95_ms":0.1,"p99_ms":0.2},"miss":null,"app":{"count":20,"mean_ms":41,"p50_ms":41.2,"p95_ms":50,"p99_ms":60}},
  "reasons":[{"disposition":"BYPASS","reason":"unkeyed header","subject":"x-account-id","count":12,"remedy":"[fields]\nx = 1","does":"It keys.","risks":"More entries.","why":"The app may answer by it."}]}],
 "unrouted":{"path":"none","line":null,"mode":"on","requests":{"BYPASS":3},"hit_ratio":null,"app_requests_saved":0,"bytes_from_cache":0,"bytes_from_app":10,
  "latency":{"hit":null,"miss":null,"app":null},"reasons":[]},
 "tags":[{"tag":"campaigns:acme","stored":4,"hits":80,"purged":1}],
 "memory":{"entries":1,"bytes":4096,"limit_bytes":268435456,"evictions":0},
 "redis":{"state":"degraded","lease":false,"peers":1,"journal":2,"why":"redis is lost: timed out"},
 "ready":{"status":"degraded","reasons":["redis is lost: timed out"]},
 "config":{"file":"proxy.toml","loaded_ms":5000,"loads":2,"error":"proxy.toml:3:1: error: unknown key","failed_ms":60000,"restart_needed":["memory.size"]},
 "shadow":{"findings":2,"audited":100,"audited_stale":1,"languages":{"never":2,"differs":1}},
 "uncached":{"templates":2,"requests":52,"app_s":75.5},
 "cookies":{"requests":532,"unseen":["sid","wordpress_*"]}}"#;

/// What a command says of this sidecar.
async fn told(admin: &Origin, arguments: &[&str]) -> Said {
    CommandLine::new().variable("SIDECACHE_ADMIN", &admin.address.to_string()).run(arguments).await
}

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}

/// Writes have templates, too: they are no reads that a route could answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r960_stats_tell_of_no_route_only_where_reads_had_none() {
    let uncached = "\"templates\":2,\"requests\":52,\"app_s\":75.5";
    assert!(STATS.contains(uncached));
    let text = STATS.replace(uncached, "\"templates\":1,\"requests\":0,\"app_s\":0.0");
    let admin = Origin::scripted(&[("GET /stats", 200, &text)]);
    let said = told(&admin, &["stats"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(!said.out.contains("no route"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_say_of_how_many_requests_an_estimate_is() {
    let sampled = STATS.replace("\"requests\":52,", "\"requests\":5200,\"observed\":93,");
    let admin = Origin::scripted(&[("GET /stats", 200, &sampled)]);
    let said = told(&admin, &["stats"]).await;
    let line = "5200 requests, 1m 15s in the app (estimated from a sample of 93): see";
    contains_all(&said.out, &[line]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_are_tables_that_name_what_mends() {
    let admin = Origin::scripted(&[("GET /stats", 200, STATS)]);
    let said = told(&admin, &["stats"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    contains_all(
        &said.out,
        &[
            "sidecache 0.1.0 (8658b63a1b2c), up for 1m 4s, mode on, degraded: redis is lost: timed out",
            "112: HIT 80, MISS 20, BYPASS 12",
            "80.0% of cacheable requests, 71.4% of all requests",
            "2.0 MiB from the cache, 4.0 KiB from the origin, 512 B of the sidecar's own pages",
            "2 purges in the journal",
            "1 entry, 4.0 KiB of 256.0 MiB",
            "loaded 1m 0s ago",
            "needed for memory.size",
            "2 findings: see `sidecache advise`",
            "52 requests, 1m 15s in the app: see `sidecache advise`",
            "1 of 100 hits stale",
            "bodies of 2 routes never depended on Accept-Language: see `sidecache advise`",
            "bodies of 1 route depend on Accept-Language: see `sidecache advise`",
            "/api/v1/campaigns: learned from Vary: user-agent, dnt",
            "none of 532 requests has carried sid, wordpress_* of [credential]",
            "proxy.toml:3:1: error: unknown key",
            "unkeyed header x-account-id",
            "line 42: [fields]; x = 1. It keys. More entries.",
            "campaigns:acme",
        ],
    );
    let route = said
        .out
        .lines()
        .find(|line| line.starts_with("/api/v1/campaigns ") && line.contains("KiB"))
        .expect("a row for the route");
    let cells: Vec<_> = route.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        cells,
        [
            "/api/v1/campaigns",
            "on",
            "origin's, last 1m 0s",
            "112",
            "80.0%",
            "71.4%",
            "0.042 ms",
            "41 ms",
            "80",
            "2.0 MiB",
            "4.0 KiB"
        ]
    );
    let said = told(&admin, &["stats", "--json"]).await;
    assert_eq!((said.code, said.out.trim_end()), (0, STATS));
}

const PEERS: &str = r#"{"shared":true,"why":null,"silent":1,"unreadable":2,"notes":["for 5 min, other rules than here are in force in b\u001b[2J"],"silent_after_s":15,"limit":256,
 "sidecars":[
 {"id":"1","name":"a 127.0.0.1:8080","this":true,"age_s":0,"silent":false,"differs":[],"version":"1.0.0","uptime_s":64,"mode":"on","status":"ready","reasons":[],
  "requests":{"HIT":8,"MISS":2,"BYPASS":90},"per_second":1.5,"hit_ratio":0.8,"latency":{"hit":{"p50_ms":0.05,"p95_ms":1},"app":null},"bytes_from_cache":1,"memory":{"entries":1,"bytes":1024,"limit_bytes":2048,"evictions":0}},
 {"id":"2","name":"b\u001b[2J","this":false,"age_s":2,"silent":false,"differs":["rules","version"],"version":"2.0.0","uptime_s":3,"mode":"off","status":"degraded","reasons":["redis is slow\u202e"],
  "requests":{"HIT":18446744073709551615},"per_second":20.25,"hit_ratio":null,"latency":{"hit":null,"app":{"p50_ms":41,"p95_ms":50}},"memory":{"bytes":1024}},
 {"id":"3","name":"c","silent":true,"age_s":95,"differs":[],"version":"1.0.0","mode":"on","status":"ready","reasons":["not shown"],"requests":{"HIT":7},"per_second":500,"memory":{"bytes":1024}}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sidecars_are_a_table_with_totals_and_notes() {
    let admin = Origin::scripted(&[("GET /peers", 200, PEERS), ("GET /stats", 200, STATS)]);
    let said = told(&admin, &["stats", "--all"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let cells = |name: &str| -> Vec<String> {
        let line = said.out.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect()
    };
    let first = "a 127.0.0.1:8080 (this)|ready|1.0.0|1m 4s|100|1.5|80.0%|0.050 ms|-|1.0 KiB|same";
    assert_eq!(cells("a 127").join("|"), first, "{}", said.out);
    assert_eq!(cells("c ")[1..3], ["silent for 1m 35s", "1.0.0"]);
    assert_eq!(cells("all 2"), ["all 2", "18446744073709551615", "22", "100.0%", "2.0 KiB"]);
    contains_all(
        &said.out,
        &[
            "degraded, off",
            "2.0.0 (different)",
            "b\\u{1b}[2J: redis is slow\\u{202e}",
            "note: for 5 min, other rules than here are in force in b\\u{1b}[2J",
            "note: 2 values in Redis, in the place of summaries, that no sidecar wrote",
        ],
    );
    assert!(!said.out.contains("not shown") && !said.out.contains('\u{1b}'), "{}", said.out);
    let said = told(&admin, &["stats", "--all", "--json"]).await;
    assert_eq!((said.code, said.out.trim_end()), (0, PEERS));
    let said = told(&admin, &["stats"]).await;
    contains_all(
        &said.out,
        &["sidecars   2 other sidecars, 1 silent: see `sidecache stats --all`; NOTE: for 5 min"],
    );
    assert_eq!(told(&admin, &["stats", "--all", "--ready"]).await.code, 64);
    let earlier = Origin::scripted(&[("GET /stats", 200, STATS)]);
    let said = told(&earlier, &["stats"]).await;
    assert_eq!((said.code, said.out.contains("sidecars ")), (0, false), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_is_a_line_and_an_exit_code() {
    for (status, answer, code, line) in [
        (200, r#"{"status":"ready","reasons":[]}"#, 0, "ready\n"),
        (
            200,
            r#"{"status":"degraded","reasons":["redis is lost"]}"#,
            0,
            "degraded: redis is lost\n",
        ),
        (503, r#"{"status":"unready","reasons":["draining"]}"#, 1, "unready: draining\n"),
    ] {
        let admin = Origin::scripted(&[("GET /ready", status, answer)]);
        let said = told(&admin, &["stats", "--ready"]).await;
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (code, line, ""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_says_what_was_purged() {
    let answer = r#"{"tags":["campaigns:acme","uri:app.test/a"],"everything":false,"soft":true,"took_ms":1.3}"#;
    let admin = Origin::scripted(&[("POST /purge", 200, answer)]);
    let said =
        told(&admin, &["purge", "--tag", "campaigns:acme", "--url", "http://app.test/a", "--soft"])
            .await;
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "soft purged 2 tags in 1.30 ms\n  campaigns:acme\n  uri:app.test/a\n")
    );
    let question = admin.requests().pop().expect("it was asked");
    assert_eq!(
        question.json(),
        json!({ "tags": ["campaigns:acme"], "urls": ["http://app.test/a"], "soft": true })
    );
    assert_eq!(
        (question.line().as_str(), &question.headers["content-type"]),
        ("POST /purge", &"application/json".parse().expect("a value"))
    );
    assert_eq!(question.headers["host"], admin.address.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_purged_only_when_that_was_meant() {
    let answer = r#"{"tags":[],"everything":true,"soft":false,"took_ms":2}"#;
    let admin = Origin::scripted(&[("POST /purge", 200, answer)]);
    for arguments in [
        &["purge"][..],
        &["purge", "--everything"],
        &["purge", "--everything", "--tag", "a"],
        &["purge", "--soft"],
        &["purge", "--tag", ""],
    ] {
        assert_eq!(told(&admin, arguments).await.code, 64, "{arguments:?}");
    }
    assert!(admin.requests().is_empty());
    let said = told(&admin, &["purge", "--everything", "--yes"]).await;
    assert_eq!((said.code, said.out.as_str()), (0, "purged everything in 2.00 ms\n"));
    assert_eq!(admin.requests()[0].json(), json!({ "everything": true, "soft": false }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_is_sent_from_where_it_is_kept_and_never_shown() {
    let refused = r#"{"error":"the admin token is missing or wrong","hint":null}"#;
    let admin = Origin::scripted(&[("GET /stats", 401, refused)]);
    let config = format!(
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[admin]\naddress = \"{}\"\ntoken = \
        \"of-the-config-file\"\n",
        admin.address
    );
    let line = || CommandLine::new().file("proxy.toml", &config).file("token", "of-the-file\n");
    for (line, arguments, token, named) in [
        (line(), &["stats"][..], "of-the-config-file", "[admin]"),
        (
            line().variable("SIDECACHE_ADMIN_TOKEN", "of-the-environment"),
            &["stats"],
            "of-the-environment",
            "$SIDECACHE_ADMIN_TOKEN",
        ),
        (
            line().variable("SIDECACHE_ADMIN_TOKEN", "of-the-environment"),
            &["stats", "--token-file", "token"],
            "of-the-file",
            "--token-file",
        ),
    ] {
        let said = line.run(arguments).await;
        let question = admin.requests().pop().expect("it was asked");
        assert_eq!(question.headers["authorization"], format!("Bearer {token}"));
        assert_eq!(said.code, 1);
        contains_all(&said.err, &[named, "rejects the token from"]);
        assert!(!said.err.contains(token) && said.out.is_empty(), "{}", said.err);
    }
    let said = told(&admin, &["stats"]).await;
    assert!(!admin.requests().pop().expect("it was asked").headers.contains_key("authorization"));
    contains_all(&said.err, &["none was found", "--token-file", "$SIDECACHE_ADMIN_TOKEN"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_reached_or_understood_is_said() {
    let nobody = crate::support::process::free_port();
    let config = format!(
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[admin]\naddress = \"127.0.0.1:{nobody}\"\n"
    );
    let said = CommandLine::new().file("proxy.toml", &config).run(&["stats"]).await;
    assert_eq!(said.code, 1);
    contains_all(
        &said.err,
        &[
            &format!("127.0.0.1:{nobody}"),
            "is it running?",
            "`[admin] address` of proxy.toml",
            "--admin",
        ],
    );
    let said = CommandLine::new().run(&["stats"]).await;
    assert_eq!(said.code, 64);
    contains_all(&said.err, &["proxy.toml", "--admin"]);
    let said =
        CommandLine::new().run(&["stats", "--admin", "http://user:hunter2@127.0.0.1:1"]).await;
    assert_eq!(said.code, 64);
    assert!(!said.err.contains("hunter2"), "{}", said.err);

    let admin = Origin::scripted(&[
        (
            "GET /stats",
            403,
            r#"{"error":"this Host is not served here","hint":"name it by its address"}"#,
        ),
        ("POST /purge", 200, "<html>hello</html>"),
    ]);
    for (arguments, parts) in [
        (
            &["stats"][..],
            &["403", "this Host is not served here", "hint: name it by its address"][..],
        ),
        (&["advise"], &["/shadow", "its version differs"]),
        (&["purge", "--tag", "a"], &["cannot read the response"]),
    ] {
        let said = told(&admin, arguments).await;
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{arguments:?}");
        contains_all(&said.err, parts);
    }
}

const CHANGES: &str = r#"{"ok":true,"changes":[
 {"what":"route /a","change":"changed","keys":[{"key":"ttl","from":"\"5m\"","to":"\"10s\""},{"key":"jitter","from":null,"to":"\"1s\""}],"effect":"entries are left behind"},
 {"what":"purge rule /b","change":"added","keys":[],"effect":null}],
 "restart_needed":["memory.size"],"problems":[],"text":""}"#;

const REFUSED: &str = r#"{"ok":false,"changes":[],"restart_needed":[],
 "problems":[{"severity":"error","line":3,"column":1,"message":"unknown key","hint":"did you mean ttl?"}],"text":"proxy.toml:3:1: error: unknown key\n  hint: did you mean ttl?"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_says_what_changed_or_what_is_wrong() {
    let admin = Origin::scripted(&[("POST /reload", 200, CHANGES)]);
    let said = told(&admin, &["reload"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    contains_all(
        &said.out,
        &[
            "reloaded: 2 changes",
            "route /a",
            "\"5m\"",
            "\"10s\"",
            "jitter",
            "entries are left behind",
            "purge rule /b",
            "restart needed for: memory.size",
        ],
    );
    assert_eq!(told(&admin, &["reload", "--json"]).await.out.trim_end(), CHANGES);

    let admin = Origin::scripted(&[("POST /reload", 422, REFUSED)]);
    let said = told(&admin, &["reload"]).await;
    assert_eq!((said.code, said.out.as_str()), (64, ""));
    contains_all(&said.err, &["the old rules stay", "proxy.toml:3:1: error: unknown key"]);
    let said = told(&admin, &["reload", "--json"]).await;
    assert_eq!((said.code, said.out.trim_end()), (64, REFUSED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_compared_with_what_runs_once_it_is_right_in_itself() {
    let admin = Origin::scripted(&[("POST /check", 200, CHANGES)]);
    let text = format!(
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[admin]\naddress = \"{}\"\n",
        admin.address
    );
    let line =
        CommandLine::new().file("proxy.toml", &text).file("bad.toml", "[upstream]\nurll = 1\n");
    let said = line.run(&["check", "bad.toml", "--against", "running"]).await;
    assert_eq!(said.code, 64);
    assert!(admin.requests().is_empty(), "a file that is wrong in itself is not sent");
    let said = line.run(&["check", "--against", "running"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    contains_all(
        &said.out,
        &[
            "proxy.toml: ok: 0 routes",
            "a reload would make: 2 changes",
            "entries are left behind",
            "restart needed for: memory.size",
        ],
    );
    assert_eq!(admin.requests()[0].json(), json!({ "text": text }));

    let admin = Origin::scripted(&[("POST /check", 422, REFUSED)]);
    let text = text.replace(
        &text[text.rfind("127.").expect("its address")..text.rfind('"').expect("its end")],
        &admin.address.to_string(),
    );
    let said =
        CommandLine::new().file("proxy.toml", &text).run(&["check", "--against", "running"]).await;
    assert_eq!(said.code, 64);
    contains_all(&said.out, &["would reject the file", "unknown key"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn advice_is_toml_with_its_reasons_as_comments() {
    let answer = r#"{"routes":[{"route":"/api/v1/forms/{*rest}","mode":"shadow","requests":40,"would_hit":28,"would_miss":12,"would_bypass":0,"hit_rate":0.7,
      "not_stored":[],"stale":{"count":3,"unexplained":1,"examples":[]},"scope":{"count":0,"scope":"shared","examples":[]},"audit":{"asked":0,"stale":0},
      "languages":{"finding":"never","pages":20,"languages":["de","en"],"differing":0},"sources":[{"source":"sync","in_time":4,"late":2}]}],
     "advice":[{"route":"/api/v1/forms/{*rest}","why":"3 answers would have been stale after PUT /api/v1/forms/7\u001b[2J",
      "toml":"[[purges]]\npath = \"/api/v1/forms/{*rest}\"\ntags = [\"forms:{tenant}\"]\n","line":42}]}"#;
    let admin = Origin::scripted(&[("GET /shadow", 200, answer)]);
    let said = told(&admin, &["advise"]).await;
    assert_eq!(said.code, 0);
    contains_all(
        &said.out,
        &[
            "40 requests, 70.0% would be hits, 3 would have been stale (1 without a preceding \
            write), 4 changes told by the source sync and 2 stale until it told, 20 pages the same \
            in 2 languages",
            "line 42: 3 answers would have been stale",
        ],
    );
    assert!(!said.out.contains('\x1b'));
    let table: toml::Table = said.out.parse().expect("the advice is TOML as a whole");
    assert_eq!(table["purges"][0]["tags"][0].as_str(), Some("forms:{tenant}"));
    let admin = Origin::scripted(&[("GET /shadow", 200, r#"{"routes":[],"advice":[]}"#)]);
    let said = told(&admin, &["advise"]).await;
    assert_eq!(said.code, 0);
    contains_all(&said.out, &["# nothing to advise: ", "# what to cache next is not known: "]);
    let said = told(&admin, &["advise", "--json"]).await;
    let all: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(all, json!({ "routes": [], "advice": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn advice_says_what_to_cache_next() {
    let uncached = r#"{"templates":2,"requests":52,"app_s":75.5,"paths":[
     {"path":"/api/v1/items/{n}\u001b[2J","requests":40,"app_s":70,"hit_share":0.75,"saved_s":52.5,"why_not":null,
      "suggestion":{"toml":"[fields]\nx = { header = \"x-a\" }\n[[routes]]\npath = \"/api/v1/items/{id}\"\nmode = \"shadow\"\n[[purges]]\npath = \"/api/v1/items/{*rest}\"\ntags = [\"items\"]",
       "diff":"","does":"It watches.","risks":"It may be stale."}},
     {"path":"/login","requests":12,"app_s":5.5,"hit_share":null,"saved_s":null,"why_not":"a login","suggestion":null}]}"#;
    let shadow = ("GET /shadow", 200, r#"{"routes":[],"advice":[]}"#);
    let admin = Origin::scripted(&[shadow, ("GET /uncached", 200, uncached)]);
    let said = told(&admin, &["advise"]).await;
    assert_eq!(said.code, 0);
    contains_all(
        &said.out,
        &[
            "# What to cache next: 52 requests without a route, 1m 15s in the app",
            "40 requests, 1m 10s in the app, 75.0% would be hits, which saves 52.5 s",
            "# It watches.\n# It may be stale.\n# [fields]\n# x = { header = \"x-a\" }\n[[routes]]",
            "# /login: 12 requests, 5.5 s in the app\n# no route: a login",
        ],
    );
    assert!(!said.out.contains('\x1b'));
    let table: toml::Table = said.out.parse().expect("the advice is TOML as a whole");
    assert_eq!(table["routes"][0]["mode"].as_str(), Some("shadow"));
    let said = told(&admin, &["advise", "--json"]).await;
    let all: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(all["uncached"]["paths"][1]["path"], "/login");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_live_shows_what_is_stored_and_why_it_would_not_be_served() {
    let answer = |stored: &str| {
        format!(
            r#"{{"request":"GET /p?q=1","lines":[{{"name":"route","value":"/p"}},{{"name":"key","value":"ab12"}}],"stored":{stored}}}"#
        )
    };
    let purged = answer(
        r#"{"tier":"redis","status":200,"bytes":329,"age_s":1.2,"ttl_s":298.8,"fresh":true,
            "tags":[{"tag":"campaigns:acme","current":false},{"tag":"uri:x","current":true}],"verdict":"MISS","reason":"purged"}"#,
    );
    let admin = Origin::scripted(&[("POST /explain", 200, &purged)]);
    let arguments = ["explain", "get", "/p?q=1", "-H", "X-Tenant-Id: acme", "--live"];
    let said = told(&admin, &arguments).await;
    assert_eq!(said.code, 0, "{}", said.err);
    contains_all(
        &said.out,
        &[
            "GET /p?q=1\n  route        /p\n",
            "in Redis: 200, 329 B, 1.2 s old, fresh for 4m 58s more",
            "campaigns:acme (purged since)",
            "uri:x (current)",
            "MISS: the stored response would not be served: purged",
        ],
    );
    let body = &admin.requests()[0].json();
    assert_eq!(
        (&body["target"], &body["headers"], &body["trusted"]),
        (&json!("/p?q=1"), &json!([["X-Tenant-Id", "acme"]]), &json!(false))
    );
    let admin = Origin::scripted(&[("POST /explain", 200, &answer("null"))]);
    let said = told(&admin, &arguments).await;
    contains_all(&said.out, &["stored       nothing", "-H 'host: app.example.com'"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_offline_is_text_or_json() {
    let config =
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\npath = \"/a/{id}\"\nttl = \"5m\"\n";
    let line = CommandLine::new().file("proxy.toml", config);
    let said = line.run(&["explain", "GET", "/a/7"]).await;
    assert_eq!(said.code, 0);
    contains_all(&said.out, &["GET /a/7\n  route        /a/{id}\n  capture id   7\n"]);
    let said = line.run(&["explain", "GET", "/a/7", "--json"]).await;
    let value: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(
        (&value["request"], &value["lines"][0]),
        (&json!("GET /a/7"), &json!({ "name": "route", "value": "/a/{id}" }))
    );
    let said = line.run(&["explain", "GET", "a", "-H", "x: 1"]).await;
    assert_eq!(said.code, 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_offline_obeys_the_directives_of_the_request() {
    let config =
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\npath = \"/a\"\nttl = \"5m\"\n";
    let line = CommandLine::new().file("proxy.toml", config);
    for (header, verdict, reason) in [
        ("cache-control: no-cache", "X-Cache      REVALIDATED when", "request no-cache"),
        ("pragma: no-cache", "X-Cache      REVALIDATED when", "request no-cache"),
        ("cache-control: no-store", "X-Cache      BYPASS\n", "request no-store"),
        (
            "cache-control: only-if-cached",
            "X-Cache      HIT when it is stored, else 504",
            "only if",
        ),
    ] {
        let said = line.run(&["explain", "GET", "/a", "-H", header]).await;
        assert_eq!(said.code, 0, "{header}");
        contains_all(&said.out, &[verdict, &format!("reason       {reason}")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_are_there_for_each_shell() {
    for (shell, part) in [
        ("bash", "_sidecache"),
        ("zsh", "#compdef sidecache"),
        ("fish", "complete -c sidecache"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let said = CommandLine::new().run(&["completions", shell]).await;
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{shell}");
        contains_all(&said.out, &[part, "everything"]);
    }
    assert_eq!(CommandLine::new().run(&["completions", "csh"]).await.code, 64);
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidecache"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built with the tests");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("a child can be waited for");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
