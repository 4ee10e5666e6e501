//! Webhooks of services on the internet, signed in the forms that these have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use serde_json::json;
use sha2::Sha256;
use sidecache::app::Clock;

use super::shop::{PATIENCE, in_state, read, source, warmed};
use super::watch::{Numbered, ROUTES};
use crate::support::{Client, CommandLine, RedisServer, Reply, Sidecar, Socket, eventually};

/// The secret of all forms: that of Standard Webhooks is base64.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

const FORMS: [&str; 7] = [
    "\"github\"",
    "\"shopify\"",
    "\"slack\"",
    "\"standard\"",
    "\"stripe\"",
    "{ header = \"x-sign\", prefix = \"v=\", encoding = \"base64\" }",
    "{ header = \"x-sign\", timestamp = \"x-time\", signs = \"{timestamp}/{body}\" }",
];

fn seconds() -> u64 {
    Clock::system().wall().0 / 1000
}

/// The headers of a delivery that was sent at this time.
fn signed(form: &str, secret: &str, body: &str, at: u64) -> Vec<(&'static str, String)> {
    let mac = |key: &[u8], text: String| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    let hex = |bytes: Vec<u8>| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    };
    let plain = |text: String| mac(secret.as_bytes(), text);
    match form.trim_matches('"') {
        "github" => {
            vec![("x-hub-signature-256", format!("sha256={}", hex(plain(body.to_owned()))))]
        }
        "shopify" => vec![("x-shopify-hmac-sha256", BASE64.encode(plain(body.to_owned())))],
        "slack" => vec![
            ("x-slack-request-timestamp", at.to_string()),
            ("x-slack-signature", format!("v0={}", hex(plain(format!("v0:{at}:{body}"))))),
        ],
        "standard" => {
            let key = BASE64.decode(secret.trim_start_matches("whsec_")).expect("base64");
            let signature = BASE64.encode(mac(&key, format!("msg_1.{at}.{body}")));
            vec![
                ("webhook-id", "msg_1".to_owned()),
                ("webhook-timestamp", at.to_string()),
                ("webhook-signature", format!("v1,{signature}")),
            ]
        }
        "stripe" => {
            let signature = hex(plain(format!("{at}.{body}")));
            vec![("stripe-signature", format!("t={at},v1={signature}"))]
        }
        own if own.contains("timestamp") => {
            vec![("x-sign", hex(plain(format!("{at}/{body}")))), ("x-time", at.to_string())]
        }
        _ => vec![("x-sign", format!("v={}", BASE64.encode(plain(body.to_owned()))))],
    }
}

fn source_of(form: &str, lines: &str) -> String {
    format!(
        "[[sources]]\nkind = \"webhook\"\npath = \"/hooks/shop\"\nsecret = \"{SECRET}\"\n\
         signature = {form}\n{lines}\n"
    )
}

const ITEMS: &str = "tags = [\"item:{id}\"]";

async fn receiving(app: &Numbered, rules: &str) -> Sidecar {
    let sidecar = Sidecar::start(app.origin.address, &format!("{rules}\n{ROUTES}")).await;
    in_state(&sidecar, "receiving").await;
    sidecar
}

async fn post(sidecar: &Sidecar, headers: &[(&str, String)], body: impl Into<Bytes>) -> Reply {
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Client::new(sidecar.address).send("POST", "/hooks/shop", &headers, body).await
}

async fn deliver(sidecar: &Sidecar, form: &str, body: &str) -> Reply {
    post(sidecar, &signed(form, SECRET, body, seconds()), body.to_owned()).await
}

/// How many deliveries have this outcome.
async fn counted(sidecar: &Sidecar, outcome: &str) -> u64 {
    let metrics = sidecar.admin_get("/metrics").await.text().to_owned();
    let label = format!("outcome=\"{outcome}\"");
    let mut lines = metrics.lines().filter(|line| line.starts_with("sidecache_source_deliveries"));
    let line = lines.find(|line| line.contains(&label));
    let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("{outcome}: {metrics}"))
}

/// The answer goes out when no sidecar serves the old version any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1460_a_signed_webhook_purges_at_all_sidecars_before_it_is_answered() {
    for form in FORMS {
        let (app, redis) = (Numbered::start(), RedisServer::start());
        let rules = format!("{}\n{}", redis.table(), source_of(form, ITEMS));
        let one = receiving(&app, &rules).await;
        let other = receiving(&app, &rules).await;
        for number in 2..6 {
            warmed(&one, "/items/1").await;
            warmed(&other, "/items/1").await;
            app.says(number);
            let reply = deliver(&one, form, &format!("{{\"id\":1,\"n\":{number}}}")).await;
            assert_eq!((reply.status, reply.text()), (200, "200 OK: purged\n"), "{form}");
            for sidecar in [&one, &other] {
                let (read, _) = read(&mut Client::new(sidecar.address), "/items/1").await;
                assert_eq!(read, number, "{form}");
            }
        }
        warmed(&one, "/about").await;
        assert_eq!(counted(&one, "purged").await, 4);
        let source = source(&one).await;
        assert_eq!((&source["events"], &source["refused"]), (&json!(4), &json!(0)), "{source}");
        assert!(source["heard_ms"].is_number(), "{source}");
        assert_eq!(app.origin.count("POST", "/hooks/shop"), 0);
    }
}

/// Whatever is wrong with it, the sender learns the same, and nothing is purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1461_nobody_purges_by_a_webhook_without_the_secret() {
    for form in FORMS {
        let app = Numbered::start();
        let sidecar = receiving(&app, &source_of(form, ITEMS)).await;
        let (body, now) = ("{\"id\":1}", seconds());
        warmed(&sidecar, "/items/1").await;
        app.says(2);
        let good = signed(form, SECRET, body, now);
        let mut refused = vec![
            (Vec::new(), body),
            (signed(form, OTHER, body, now), body),
            (good.clone(), "{\"id\":2}"),
            (good.iter().map(|(name, _)| (*name, "x".to_owned())).collect(), body),
            ([good.clone(), good.clone()].concat(), body),
        ];
        let has_time = ["slack", "standard", "stripe", "time"].iter().any(|it| form.contains(it));
        if has_time {
            refused.push((signed(form, SECRET, body, now - 400), body));
            refused.push((signed(form, SECRET, body, now + 400), body));
        }
        for (headers, body) in &refused {
            let reply = post(&sidecar, headers, (*body).to_owned()).await;
            let text = "401 Unauthorized: the webhook is not signed as it must be\n";
            assert_eq!((reply.status, reply.text()), (401, text), "{form} {headers:?}");
            assert_eq!(reply.header("x-cache"), "BYPASS");
        }
        let stale = read(&mut Client::new(sidecar.address), "/items/1").await;
        assert_eq!(stale, (1, true), "{form}: nothing was purged");
        assert_eq!(source(&sidecar).await["refused"], json!(refused.len()), "{form}");
        assert_eq!(counted(&sidecar, "late").await, 2 * u64::from(has_time), "{form}");
        assert_eq!(app.origin.count("POST", "/hooks/shop"), 0);
        let metrics = sidecar.admin_get("/metrics").await.text().to_owned();
        assert!(!metrics.contains("whsec_"));
    }
}

/// The app has lost one method of one path, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1462_what_is_not_posted_to_exactly_that_path_is_for_the_app() {
    let app = Numbered::start();
    let sidecar = receiving(&app, &source_of("\"github\"", ITEMS)).await;
    let mut client = Client::new(sidecar.address);
    for (method, path) in [
        ("GET", "/hooks/shop"),
        ("PUT", "/hooks/shop"),
        ("POST", "/hooks/shop/"),
        ("POST", "/hooks/shop%2f"),
        ("POST", "/hooks"),
        ("POST", "/"),
    ] {
        let reply = client.send(method, path, &[], "").await;
        assert_eq!((reply.status, reply.text()), (200, "1"), "{method} {path}");
        assert_eq!(app.origin.count(method, path), 1, "{method} {path}");
    }
    let reply = client.send("POST", "/hooks/shop?x=1", &[], "").await;
    assert_eq!(reply.status, 401);
    let explained = CommandLine::new()
        .file("proxy.toml", &sidecar.with_rules(&source_of("\"github\"", ITEMS)))
        .run(&["explain", "POST", "/hooks/shop"])
        .await;
    assert!(explained.out.contains("if it is signed for the source webhook"), "{}", explained.out);
}

/// A sender that is refused repeats what it sends, or gives up: what is signed is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1463_what_names_no_tag_purges_nothing_and_is_accepted() {
    let app = Numbered::start();
    let lines = "tags = [\"item:{id}\"]\nfields = { id = \"/data/object/id\" }\nname = \"shop\"";
    let sidecar = receiving(&app, &source_of("\"stripe\"", lines)).await;
    warmed(&sidecar, "/items/1").await;
    warmed(&sidecar, "/items/2").await;
    app.says(2);
    for (body, status) in [
        ("{\"type\":\"ping\"}", 200),
        ("{\"id\":1}", 200),
        ("{\"data\":{\"object\":{}}}", 200),
        // What a value holds adds no tag.
        ("{\"data\":{\"object\":{\"id\":\"7 item:1\\nitem:2\"}}}", 200),
        ("[1]", 200),
        ("item:1", 400),
        ("*", 400),
        ("", 400),
        ("{\"data\":{\"object\":{\"id\":1}}", 400),
    ] {
        let reply = deliver(&sidecar, "stripe", body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
    }
    for path in ["/items/1", "/items/2"] {
        assert_eq!(read(&mut Client::new(sidecar.address), path).await, (1, true), "{path}");
    }
    let shown = source(&sidecar).await;
    assert_eq!((&shown["bad_payloads"], &shown["refused"]), (&json!(8), &json!(4)), "{shown}");
    let reply = deliver(&sidecar, "stripe", "{\"data\":{\"object\":{\"id\":[1]}}}").await;
    assert_eq!(reply.status, 200);
    assert_eq!(read(&mut Client::new(sidecar.address), "/items/1").await, (2, false));
    assert!(read(&mut Client::new(sidecar.address), "/items/2").await.1, "only what is named");
    // One that is null stands for all of them.
    deliver(&sidecar, "stripe", "{\"data\":{\"object\":{\"id\":null}}}").await;
    assert_eq!(read(&mut Client::new(sidecar.address), "/items/2").await, (2, false));
}

/// Nobody waits for a delivery that comes again and again; what it names is purged all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1464_a_delivery_that_comes_again_is_accepted_so_often_in_a_minute() {
    let app = Numbered::start();
    let sidecar = receiving(&app, &source_of("\"github\"", ITEMS)).await;
    let headers = signed("github", SECRET, "{\"id\":1}", 0);
    for number in 0..13 {
        let reply = post(&sidecar, &headers, "{\"id\":1}").await;
        let expected = if number < 10 { 200 } else { 429 };
        assert_eq!(reply.status, expected, "{number}: {}", reply.text());
        if expected == 429 {
            assert_eq!(reply.header("retry-after"), "60");
        }
    }
    let metrics = sidecar.admin_get("/metrics").await.text().to_owned();
    assert!(metrics.contains("sidecache_limit_reached_total{limit=\"sources.repeats\"} 3"));
    assert_eq!(counted(&sidecar, "repeated").await, 3);
    warmed(&sidecar, "/items/1").await;
    app.says(2);
    assert_eq!(post(&sidecar, &headers, "{\"id\":1}").await.status, 429);
    eventually("what it names is purged", PATIENCE, || async {
        read(&mut Client::new(sidecar.address), "/items/1").await.0 == 2
    })
    .await;
    // Others are not affected.
    warmed(&sidecar, "/items/2").await;
    app.says(3);
    assert_eq!(deliver(&sidecar, "github", "{\"id\":2}").await.status, 200);
    assert_eq!(read(&mut Client::new(sidecar.address), "/items/2").await.0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1465_a_body_that_is_too_long_is_not_read() {
    let app = Numbered::start();
    let lines = format!("{ITEMS}\nmax_body = \"1KiB\"");
    let sidecar = receiving(&app, &source_of("\"github\"", &lines)).await;
    let padded = |length: usize| format!("{{\"id\":1,\"x\":\"{}\"}}", "y".repeat(length - 15));
    assert_eq!(deliver(&sidecar, "github", &padded(1024)).await.status, 200);
    assert_eq!(deliver(&sidecar, "github", &padded(1025)).await.status, 413);
    let head = "POST /hooks/shop HTTP/1.1\r\nHost: app.test\r\n";
    for (more, status) in [
        ("Content-Length: 99999999\r\n\r\n", "413"),
        (&*format!("Transfer-Encoding: chunked\r\n\r\n500\r\n{}\r\n", "y".repeat(0x500)), "413"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "400"),
    ] {
        let mut socket = Socket::connect(sidecar.address).await;
        socket.send(format!("{head}{more}")).await;
        let said = socket.line().await;
        assert!(said.contains(status), "{more}: {said}");
    }
    assert_eq!(counted(&sidecar, "too_large").await, 3);
    // A sender that leaves in the middle.
    let mut socket = Socket::connect(sidecar.address).await;
    socket.send(format!("{head}Content-Length: 500\r\n\r\n{{\"id\"")).await;
    drop(socket);
    eventually("it is counted", PATIENCE, || async { counted(&sidecar, "broken").await == 1 })
        .await;
}

/// Bodies of webhooks share the memory of all uploads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1467_there_is_no_room_for_more_bodies_than_limits_uploads() {
    let app = Numbered::start();
    let rules = format!("[limits]\nuploads = \"64KiB\"\n{}", source_of("\"github\"", ITEMS));
    let sidecar = receiving(&app, &rules).await;
    let body = |length: usize| format!("{{\"id\":1,\"x\":\"{}\"}}", "y".repeat(length));
    for (length, status) in [(20_000, 200), (40_000, 429), (20_000, 200)] {
        let reply = deliver(&sidecar, "github", &body(length)).await;
        assert_eq!(reply.status, status, "{length}: {}", reply.text());
    }
    assert_eq!(counted(&sidecar, "no_room").await, 1);
}

/// While Redis is lost the purge is in the journal, and the sender knows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1466_a_webhook_is_accepted_while_redis_is_lost() {
    let (app, mut redis) = (Numbered::start(), RedisServer::start());
    let rules = format!("{}\n{}", redis.table(), source_of("\"github\"", ITEMS));
    let sidecar = receiving(&app, &rules).await;
    redis.kill();
    eventually("Redis is lost", PATIENCE, || async {
        sidecar.stats().await["redis"]["state"] == "degraded"
    })
    .await;
    app.says(2);
    let reply = deliver(&sidecar, "github", "{\"id\":1}").await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(counted(&sidecar, "pending").await, 1);
    assert_eq!(read(&mut Client::new(sidecar.address), "/items/1").await.0, 2);
    redis.restart();
    eventually("the journal is replayed", PATIENCE, || async {
        sidecar.stats().await["redis"]["journal"] == json!(0)
    })
    .await;
}

/// A reload changes the secret, with the former one beside it while the sender changes it, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_is_changed_by_a_reload() {
    let app = Numbered::start();
    let sidecar = receiving(&app, &source_of("\"github\"", ITEMS)).await;
    let status = async |secret: &str| {
        let headers = signed("github", secret, "{\"id\":1}", 0);
        post(&sidecar, &headers, "{\"id\":1}").await.status
    };
    assert_eq!((status(SECRET).await, status(OTHER).await), (200, 401));
    let one = format!("secret = \"{SECRET}\"");
    for (secrets, expected) in [
        (format!("secret = [\"{OTHER}\", \"{SECRET}\"]"), (200, 200)),
        (format!("secret = \"{OTHER}\""), (401, 200)),
    ] {
        let rules = source_of("\"github\"", ITEMS).replace(&one, &secrets);
        sidecar.rewrite(&format!("{rules}\n{ROUTES}"));
        let reloaded = sidecar.admin_ok("/reload", &json!({})).await;
        assert!(!reloaded.to_string().contains("whsec_"), "{reloaded}");
        assert_eq!((status(SECRET).await, status(OTHER).await), expected);
    }
    sidecar.rewrite(ROUTES);
    sidecar.admin_ok("/reload", &json!({})).await;
    assert_eq!(status(OTHER).await, 200, "the app has its path again");
    assert_eq!(app.origin.count("POST", "/hooks/shop"), 1);
}

/// A file without fields in its tags purges them whatever is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_webhook_whose_tags_have_no_fields_purges_them_all() {
    let app = Numbered::start();
    let sidecar = receiving(&app, &source_of("\"github\"", "tags = [\"pages\"]")).await;
    for (number, body) in [(2, "{}"), (3, "no JSON"), (4, "")] {
        warmed(&sidecar, "/about").await;
        app.says(number);
        assert_eq!(deliver(&sidecar, "github", body).await.status, 200);
        assert_eq!(read(&mut Client::new(sidecar.address), "/about").await.0, number);
    }
}

#[tokio::test]
async fn check_says_what_a_webhook_needs() {
    let head = "[upstream]\nurl = \"http://127.0.0.1:1\"\n";
    let good = source_of("\"github\"", "tags = [\"a:{id}\"]");
    for (from, to, expected) in [
        ("path = \"/hooks/shop\"", "", "`path` is missing"),
        ("signature = \"github\"", "", "`signature` is missing"),
        (&*format!("secret = \"{SECRET}\""), "", "`secret` is missing"),
        ("\"/hooks/shop\"", "\"hooks\"", "not the path of a webhook"),
        ("\"/hooks/shop\"", "\"/\"", "not the path of a webhook"),
        ("\"/hooks/shop\"", "\"/hooks/{id}\"", "not the path of a webhook"),
        ("\"/hooks/shop\"", "\"/a/../b\"", "not the path of a webhook"),
        ("\"github\"", "\"gitlab\"", "did you mean \"github\"?"),
        ("\"github\"", "true", "\"github\", \"shopify\""),
        ("\"github\"", "{ prefix = \"x\" }", "`header` is missing"),
        ("\"github\"", "{ header = \"a b\" }", "not a valid header name"),
        ("\"github\"", "{ header = \"x\", timestamp = \"y\" }", "how the time is signed"),
        ("\"github\"", "{ header = \"x\", signs = \"{timestamp}{body}\" }", "not what a webhook"),
        ("\"github\"", "{ header = \"x\", signs = \"{id}\" }", "not what a webhook signs"),
        ("\"github\"", "{ header = \"x\", encoding = \"hexa\" }", "did you mean \"hex\"?"),
        (SECRET, "tiny", "shorter than 16 characters"),
        ("\"github\"", "\"github\"\nwindow = \"1m\"", "no time is signed"),
        ("\"github\"", "\"slack\"\nwindow = \"1d\"", "too large"),
        ("\"github\"", "\"github\"\nmax_body = \"1B\"", "too small"),
        ("\"github\"", "\"github\"\nfields = { x = \"/x\" }", "no tag of this source has"),
        ("\"github\"", "\"github\"\nfields = { id = \"x\" }", "not a JSON pointer"),
        ("\"github\"", "\"github\"\ndegraded_ttl = \"1s\"", "`degraded_ttl` says nothing"),
        ("\"github\"", "\"github\"\nurl = \"http://h\"", "`url` says nothing"),
        (&*format!("secret = \"{SECRET}\""), "secret = []", "has 0 secrets"),
        ("tags = [\"a:{id}\"]\n", &*format!("tags = [\"a:{{id}}\"]\n{good}"), "another source"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        let file = CommandLine::new().file("proxy.toml", &format!("{head}{text}\n"));
        let said = file.run(&["check", "--offline"]).await;
        let shown = format!("{}{}", said.out, said.err);
        assert_eq!(said.code, 64, "{to}: {shown}");
        assert!(shown.contains(expected) && !shown.contains("whsec_"), "{to}: {shown}");
    }
    let weak = good.replace("\"github\"", "\"standard\"").replace(SECRET, "whsec_%%%%%%%%%%%%%%%%");
    let file = CommandLine::new().file("proxy.toml", &format!("{head}{weak}\n"));
    let said = file.run(&["check", "--offline"]).await;
    assert!(said.err.contains("no secret of Standard Webhooks") || said.out.contains("no secret"));
}
