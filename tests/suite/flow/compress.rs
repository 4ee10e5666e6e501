//! `[compress]`: whatever a client gets decodes to what the app sent, and says what it is.

use std::io::Read as _;
use std::time::Duration;

use serde_json::json;
use sidecache::app::Clock;

use crate::support::{Client, Origin, RedisServer, Reply, Request, Response, Sidecar};
use crate::support::{eventually, metric};

const PUBLIC: &str =
    "[compress]\n[[routes]]\npath = \"/{name}\"\nttl = \"10m\"\nscope = \"public\"\n";

/// What current browsers accept.
const ALL: (&str, &str) = ("accept-encoding", "gzip, deflate, br, zstd");

/// A list of JSON of so many members, each of about 50 bytes.
fn list(members: usize) -> String {
    let members: Vec<String> = (0..members)
        .map(|id| format!("{{\"id\":{id},\"name\":\"member {id}\",\"tags\":[\"a\",\"b\"]}}"))
        .collect();
    format!("[{}]", members.join(","))
}

/// `/page`, `/list` and `/few` are text, `/tiny` is short, `/long` is longer than 1 MiB, `/picture`
/// is no text, `/pieces` comes in chunks.
/// All have an entity-tag that is compared as a text.
fn answer(request: &Request) -> Response {
    let name = request.path.trim_start_matches('/');
    if request.header("if-none-match").as_deref() == Some("\"1\"") {
        return Response::status(304, "").header("etag", "\"1\"");
    }
    if name == "pieces" {
        let fields = "content-type: application/json\r\netag: \"1\"\r\n";
        let body = list(3000);
        let mut response = Response::new().chunked(fields);
        for piece in body.as_bytes().chunks(7000) {
            response = response.piece(piece);
        }
        return response.end();
    }
    let (kind, body) = match name {
        "page" => ("text/html; charset=utf-8", "<p>a page</p>".repeat(300)),
        "picture" => ("image/png", "not a picture".repeat(300)),
        "tiny" => ("application/json", list(3)),
        "long" => ("application/json", list(30_000)),
        "few" => ("application/json", list(40)),
        _ => ("application/json", list(2000)),
    };
    Response::ok(body).header("content-type", kind).header("etag", "\"1\"").header("vary", "accept")
}

/// The body of a reply as the app made it.
fn decoded(reply: &Reply) -> String {
    let mut body = Vec::new();
    let read = match reply.header("content-encoding") {
        "" => {
            body = reply.body.to_vec();
            Ok(0)
        }
        "gzip" => flate2::read::GzDecoder::new(&reply.body[..]).read_to_end(&mut body),
        "br" => brotli::Decompressor::new(&reply.body[..], 4096).read_to_end(&mut body),
        "zstd" => zstd::Decoder::new(&reply.body[..])
            .and_then(|mut decoder| decoder.read_to_end(&mut body)),
        other => panic!("nobody has asked for {other}"),
    };
    read.expect("the coding that the head names");
    if reply.cache() == "HIT" && reply.status != 304 && !reply.body.is_empty() {
        assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    }
    String::from_utf8(body).expect("text")
}

async fn get(sidecar: &Sidecar, path: &str, headers: &[(&str, &str)]) -> Reply {
    Client::new(sidecar.address).get(path, headers).await
}

/// Fills a key, and returns the response of the fill and the first hit.
async fn fill(sidecar: &Sidecar, path: &str, headers: &[(&str, &str)]) -> (Reply, Reply) {
    let first = get(sidecar, path, headers).await;
    eventually("it is stored", Duration::from_secs(10), || async {
        get(sidecar, path, headers).await.cache() == "HIT"
    })
    .await;
    (first, get(sidecar, path, headers).await)
}

/// How many responses were stored in this coding.
async fn coded(sidecar: &Sidecar, coding: &str) -> u64 {
    let series = format!("sidecache_compress_bodies_total{{coding=\"{coding}\"}}");
    metric(sidecar.admin, &series).await
}

/// How many were stored as they came, for this reason.
async fn plain(sidecar: &Sidecar, reason: &str) -> u64 {
    let series = format!("sidecache_compress_plain_total{{reason=\"{reason}\"}}");
    metric(sidecar.admin, &series).await
}

fn varies_once(reply: &Reply) -> bool {
    let lines = reply.headers.get_all("vary").iter();
    let names = lines.flat_map(|line| line.to_str().expect("text").split(','));
    names.filter(|name| name.trim().eq_ignore_ascii_case("accept-encoding")).count() == 1
}

/// 1370. The client of the miss gets what the app sends; each hit gets it in the client's coding,
/// and so do HEAD and conditions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1370_whatever_a_client_gets_decodes_to_what_the_app_sent() {
    let app = Origin::start(answer);
    let sidecar = Sidecar::start(app.address, PUBLIC).await;
    for path in ["/page", "/list", "/pieces"] {
        let mut seen = 0;
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, deflate, br", "br"),
            ("gzip", "gzip"),
            ("x-gzip;q=0.5, zstd;q=0", "gzip"),
            ("br;q=0.2, zstd;q=0.1", "br"),
            ("deflate", ""),
            ("gzip;q=0.1, identity;q=0.5", ""),
        ] {
            let accepts = [("accept-encoding", accepted)];
            let (first, hit) = fill(&sidecar, path, &accepts).await;
            let whole = decoded(&first);
            assert_eq!(hit.header("content-encoding"), coding, "{path} {accepted}");
            assert_eq!(decoded(&hit), whole, "{path} {accepted}");
            let (tag, is_less) =
                if coding.is_empty() { ("\"1\"", false) } else { ("W/\"1\"", true) };
            assert_eq!(hit.body.len() < whole.len() / 3, is_less, "{path} {accepted}");
            assert_eq!(hit.header("etag"), tag, "{path} {accepted}");
            assert!(varies_once(&hit) && varies_once(&first), "{path} {accepted}");
            if first.cache() == "MISS" {
                seen += 1;
                assert_eq!((first.header("content-encoding"), first.header("etag")), ("", "\"1\""));
            }
            let head = Client::new(sidecar.address).send("HEAD", path, &accepts, "").await;
            assert_eq!((head.cache(), head.body.len()), ("HIT", 0));
            for name in ["content-encoding", "content-length", "etag", "vary", "content-type"] {
                assert_eq!(head.header(name), hit.header(name), "{path} {accepted} {name}");
            }
            for condition in ["\"1\"", "W/\"1\"", "\"0\", W/\"1\""] {
                let asked = [accepts[0], ("if-none-match", condition)];
                let unchanged = get(&sidecar, path, &asked).await;
                assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{condition}");
                assert_eq!(unchanged.header("etag"), tag, "{path} {accepted}");
                assert!(varies_once(&unchanged), "{path} {accepted}");
            }
            let other = [accepts[0], ("if-none-match", "\"2\"")];
            assert_eq!(decoded(&get(&sidecar, path, &other).await), whole);
        }
        assert_eq!((seen, app.seen(path).len()), (4, 4), "{path}: one fill for each form");
    }
    for coding in ["zstd", "br", "gzip"] {
        assert_eq!(coded(&sidecar, coding).await, 3, "{coding}");
        let bytes =
            |of: &str| format!("sidecache_compress_{of}_bytes_total{{coding=\"{coding}\"}}");
        let original = metric(sidecar.admin, &bytes("original")).await;
        let less = metric(sidecar.admin, &bytes("coded")).await;
        assert!(original > 200_000 && less < original / 3, "{coding} {original} {less}");
    }
    assert_eq!(plain(&sidecar, "client").await, 3);
}

/// 1371. A part is a part of the plain form, whatever the client accepts, and `If-Range` with the
/// entity-tag of a coded form asks for the whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1371_a_part_is_a_part_of_the_plain_form() {
    let app = Origin::start(answer);
    let sidecar = Sidecar::start(app.address, PUBLIC).await;
    let (first, hit) = fill(&sidecar, "/list", &[ALL]).await;
    assert_eq!((hit.header("content-encoding"), hit.header("accept-ranges")), ("zstd", ""));
    let whole = first.text().to_owned();
    let (_, plain) = fill(&sidecar, "/list", &[]).await;
    assert_eq!((plain.header("content-encoding"), plain.header("etag")), ("", "\"1\""));
    for (condition, is_part) in [("", true), ("\"1\"", true), ("W/\"1\"", false), ("\"2\"", false)]
    {
        let mut headers = vec![ALL, ("range", "bytes=10-19")];
        if !condition.is_empty() {
            headers.push(("if-range", condition));
        }
        let reply = get(&sidecar, "/list", &headers).await;
        assert_eq!((reply.cache(), reply.header("content-encoding")), ("HIT", ""), "{condition}");
        let expected = if is_part { (206, &whole[10..20]) } else { (200, &whole[..]) };
        assert_eq!((reply.status, reply.text()), expected, "{condition}");
        assert!(varies_once(&reply));
    }
}

/// 1372. What must not be changed, and what is not worth it, stays as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1372_what_must_stay_as_it_is_stays_so() {
    let app = Origin::start(|request: &Request| {
        let body = list(200);
        let response = Response::ok(body.clone()).header("content-type", "application/json");
        match request.path.trim_start_matches('/') {
            "transform" => response.header("cache-control", "max-age=60, no-transform"),
            "digest" => response.header("content-digest", "sha-256=:AA==:"),
            "repr" => response.header("repr-digest", "sha-256=:AA==:"),
            "none" => Response::status(404, body)
                .header("content-type", "application/json")
                .header("cache-control", "max-age=60"),
            "gone" => Response::status(410, body)
                .header("content-type", "application/json")
                .header("cache-control", "max-age=60"),
            "noise" => {
                let noise: Vec<u8> = (0..4000).map(|_| rand::random::<u8>()).collect();
                Response::ok(noise).header("content-type", "text/plain")
            }
            _ => answer(request),
        }
    });
    let rules = "[[routes]]\npath = \"/off/{name}\"\nttl = \"10m\"\nscope = \"public\"\n\
                 compress = false\n[[routes]]\npath = \"/own/{name}\"\nttl = \"10m\"\n\
                 [[routes]]\npath = \"/mine/{name}\"\nttl = \"10m\"\ncompress = true\n";
    let sidecar = Sidecar::start(app.address, &format!("{PUBLIC}{rules}")).await;
    for (path, reason) in [
        ("/transform", "no_transform"),
        ("/digest", "digest"),
        ("/repr", "digest"),
        ("/gone", "status"),
        ("/noise", "incompressible"),
        ("/picture", "type"),
        ("/tiny", "small"),
        ("/off/list", ""),
        ("/own/list", ""),
    ] {
        let (first, hit) = fill(&sidecar, path, &[ALL]).await;
        assert_eq!((hit.header("content-encoding"), &hit.body), ("", &first.body), "{path}");
        assert_eq!(hit.header("etag"), first.header("etag"), "{path}");
        let may_vary = ["/noise", "/tiny"].contains(&path);
        assert_eq!(varies_once(&hit), may_vary, "{path}");
        if !reason.is_empty() {
            assert!(plain(&sidecar, reason).await > 0, "{path} {reason}");
        }
    }
    for path in ["/none", "/mine/list"] {
        let (first, hit) = fill(&sidecar, path, &[ALL]).await;
        assert_eq!((hit.status, hit.header("content-encoding")), (first.status, "zstd"), "{path}");
        assert_eq!(decoded(&hit), first.text());
    }
    // RFC 9111 5.2.1.6: the client may ask for it.
    let asked = [ALL, ("cache-control", "no-transform")];
    let (first, hit) = fill(&sidecar, "/page", &asked).await;
    assert_eq!((hit.header("content-encoding"), &hit.body), ("", &first.body));
    let seen = app.seen("/page");
    assert_eq!(seen[0].header("accept-encoding").as_deref(), Some("identity"));
}

/// 1373. The app is asked for the one coding of the key, and what it sends in it is stored as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1373_what_the_app_codes_itself_is_its_own() {
    let app = Origin::start(|request: &Request| {
        let coding = request.header("accept-encoding").unwrap_or_default();
        let response = Response::ok(format!("coded in {coding}"))
            .header("content-type", "text/plain")
            .header("etag", "\"1\"");
        if coding == "identity" { response } else { response.header("content-encoding", &coding) }
    });
    let sidecar = Sidecar::start(app.address, PUBLIC).await;
    for (accepted, coding) in
        [("gzip, deflate, br, zstd", "zstd"), ("deflate, br;q=0.5, gzip;q=0.4", "br")]
    {
        let (first, hit) = fill(&sidecar, "/a", &[("accept-encoding", accepted)]).await;
        assert_eq!(first.header("content-encoding"), coding);
        assert_eq!((hit.header("content-encoding"), hit.text()), (coding, first.text()));
        assert_eq!((hit.text(), hit.header("etag")), (&*format!("coded in {coding}"), "\"1\""));
        assert!(varies_once(&hit) && varies_once(&first));
    }
    assert_eq!(plain(&sidecar, "coded").await, 2);
    assert_eq!(coded(&sidecar, "zstd").await, 0);
}

/// 1374. The app is asked by its own entity-tag, and what it confirms keeps its coding; unless the
/// app says by now that it must stay as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1374_what_the_app_confirms_keeps_its_coding() {
    let app = Origin::start(answer);
    let clock = Clock::manual();
    app.follow(&clock);
    let sidecar = Sidecar::start_at(clock.clone(), app.address, PUBLIC).await;
    let (first, _) = fill(&sidecar, "/list", &[ALL]).await;
    let whole = first.text().to_owned();
    for round in 1..4 {
        clock.advance(Duration::from_mins(11));
        let confirmed = get(&sidecar, "/list", &[ALL]).await;
        assert_eq!(confirmed.cache(), "REVALIDATED", "{}", confirmed.cache_status());
        assert_eq!(app.seen("/list").len(), 1 + round);
        let hit = get(&sidecar, "/list", &[ALL]).await;
        assert_eq!(hit.cache(), "HIT");
        for reply in [&confirmed, &hit] {
            assert_eq!(reply.header("content-encoding"), "zstd");
            assert_eq!((decoded(reply), reply.header("etag")), (whole.clone(), "W/\"1\""));
            assert!(varies_once(reply));
        }
    }
    for (path, name, value) in [
        ("/one", "cache-control", "max-age=60, no-transform"),
        ("/two", "repr-digest", "md5=:AA==:"),
    ] {
        app.answers(answer);
        assert_eq!(fill(&sidecar, path, &[ALL]).await.1.header("content-encoding"), "zstd");
        app.answers(move |request| answer(request).header(name, value));
        clock.advance(Duration::from_mins(11));
        let anew = get(&sidecar, path, &[ALL]).await;
        assert_eq!((anew.cache(), anew.header("content-encoding")), ("MISS", ""), "{name}");
        let (_, hit) = fill(&sidecar, path, &[ALL]).await;
        assert_eq!((hit.header("content-encoding"), hit.text()), ("", &*whole), "{name}");
    }
}

/// 1375. The head that a HEAD brings is compared with what the app sent, and not with what is
/// stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1375_the_head_of_a_head_is_compared_with_what_the_app_sent() {
    let app = Origin::start(answer);
    let clock = Clock::manual();
    app.follow(&clock);
    let sidecar = Sidecar::start_at(clock.clone(), app.address, PUBLIC).await;
    let (first, _) = fill(&sidecar, "/list", &[ALL]).await;
    let whole = first.text().to_owned();
    let head = async || Client::new(sidecar.address).send("HEAD", "/list", &[ALL], "").await;
    clock.advance(Duration::from_mins(11));
    let reply = head().await;
    assert_eq!((reply.cache(), reply.header("content-encoding")), ("MISS", ""));
    assert!(varies_once(&reply));
    let hit = get(&sidecar, "/list", &[ALL]).await;
    assert_eq!(hit.cache(), "HIT", "the HEAD has made it fresh");
    assert_eq!((decoded(&hit), hit.header("etag")), (whole, "W/\"1\""));
    let asked = app.seen("/list").len();
    app.answers(|request| match request.method.as_str() {
        "HEAD" => answer(request).header("repr-digest", "md5=:AA==:"),
        _ => answer(request),
    });
    clock.advance(Duration::from_mins(11));
    head().await;
    assert_eq!(get(&sidecar, "/list", &[ALL]).await.cache(), "MISS", "what is stored is gone");
    let seen = app.seen("/list");
    assert!(seen.len() > asked && seen.last().expect("asked").header("if-none-match").is_none());
}

/// 1376. Another sidecar reads what is coded from Redis, and confirms it; one without `[compress]`
/// never sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1376_sidecars_share_what_is_coded() {
    let (app, redis) = (Origin::start(answer), RedisServer::start());
    let clock = Clock::manual();
    let rules = format!("{}{PUBLIC}", redis.table());
    let start = async |rules: &str| {
        let sidecar = Sidecar::start_at(clock.clone(), app.address, rules).await;
        eventually("Redis is in use", Duration::from_secs(10), || async {
            metric(sidecar.admin, "sidecache_redis_up").await == 1
        })
        .await;
        sidecar
    };
    let one = start(&rules).await;
    let (first, hit) = fill(&one, "/list", &[ALL]).await;
    let (two, without) = (start(&rules).await, start(&rules.replace("[compress]\n", "")).await);
    let read = get(&two, "/list", &[ALL]).await;
    assert_eq!((read.cache(), &read.body), ("HIT", &hit.body), "{}", read.cache_status());
    for name in ["etag", "content-encoding", "content-length", "vary"] {
        assert_eq!(read.header(name), hit.header(name), "{name}");
    }
    assert_eq!(app.seen("/list").len(), 1);
    let (_, own) = fill(&without, "/list", &[ALL]).await;
    assert_eq!((own.header("content-encoding"), own.text()), ("", first.text()));
    assert_eq!(app.seen("/list").len(), 2);
    for sidecar in [&one, &two, &without] {
        assert_eq!(metric(sidecar.admin, "sidecache_redis_decode_errors_total").await, 0);
    }
    let asked = app.seen("/list").len();
    let still = get(&two, "/list", &[ALL, ("cache-control", "max-age=0")]).await;
    assert_eq!((still.cache(), decoded(&still)), ("REVALIDATED", first.text().to_owned()));
    assert_eq!(app.seen("/list")[asked].header("if-none-match").as_deref(), Some("\"1\""));
}

/// 1377. In scope `shared` one caller's answer is the same as another's, whichever of them was
/// coded: neither loses its authorization by the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1377_callers_stay_authorized_for_what_is_coded() {
    let app = Origin::start(answer);
    let rules = PUBLIC.replace("\"public\"", "\"shared\"");
    let sidecar = Sidecar::start(app.address, &rules).await;
    let ask = async |caller: &str| get(&sidecar, "/list", &[ALL, ("authorization", caller)]).await;
    let first = ask("Bearer one").await;
    let settled = |caller: &'static str| {
        let ask = &ask;
        async move {
            eventually("the caller is authorized", Duration::from_secs(10), || async {
                ask(caller).await.cache() == "HIT"
            })
            .await
        }
    };
    settled("Bearer one").await;
    assert_eq!(ask("Bearer two").await.cache(), "MISS", "nobody is authorized by another");
    settled("Bearer two").await;
    let asked = app.seen("/list").len();
    for caller in ["Bearer one", "Bearer two"] {
        let hit = ask(caller).await;
        assert_eq!((hit.cache(), hit.header("content-encoding")), ("HIT", "zstd"), "{caller}");
        assert_eq!(decoded(&hit), first.text());
    }
    assert_eq!(app.seen("/list").len(), asked);
}

/// 1378. Tags are read from what the app sends, which is asked for the plain form; a purge ends all
/// forms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1378_tags_of_bodies_are_read_before_they_are_coded() {
    let app = Origin::start(answer);
    let rules = format!("{PUBLIC}tags = [\"item:{{response:/*/id}}\"]\n");
    let sidecar = Sidecar::start(app.address, &rules).await;
    let forms = ["zstd", "br", "gzip", ""];
    for form in forms {
        let (first, hit) = fill(&sidecar, "/few", &[("accept-encoding", form)]).await;
        assert_eq!((hit.header("content-encoding"), decoded(&hit)), (form, first.text().into()));
    }
    let asked = app.seen("/few");
    assert_eq!(asked.len(), forms.len());
    for request in asked {
        assert_eq!(request.header("accept-encoding").as_deref(), Some("identity"));
    }
    sidecar.admin_ok("/purge", &json!({ "tags": ["item:17"] })).await;
    for form in forms {
        let reply = get(&sidecar, "/few", &[("accept-encoding", form)]).await;
        assert_eq!(reply.cache(), "MISS", "{form}");
    }
}

/// 1379. An audit compares what the app sent, and shadow mode sees the client's own request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1379_audits_and_shadow_compare_what_the_app_sent() {
    let app = Origin::start(answer);
    let rules = format!("{PUBLIC}audit = 1.0\n");
    let sidecar = Sidecar::start(app.address, &rules).await;
    fill(&sidecar, "/list", &[ALL]).await;
    eventually("it is audited", Duration::from_secs(10), || async {
        metric(sidecar.admin, "sidecache_audits_total{route=\"/{name}\",result=\"same\"}").await > 0
    })
    .await;
    let stale = "sidecache_audits_total{route=\"/{name}\",result=\"stale\"}";
    assert_eq!(metric(sidecar.admin, stale).await, 0);

    let rules = format!("{PUBLIC}mode = \"shadow\"\n");
    let sidecar = Sidecar::start(app.address, &rules).await;
    let reply = get(&sidecar, "/list", &[ALL]).await;
    assert_eq!((reply.cache(), reply.header("content-encoding")), ("BYPASS", ""));
    assert!(!varies_once(&reply), "it is the app's own response");
    let seen = app.seen("/list");
    assert_eq!(seen.last().expect("asked").header("accept-encoding").as_deref(), Some(ALL.1));
}

/// 1380. Who waits for a fill gets what the app sends, as it comes: nobody waits for the coding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1380_who_waits_for_a_fill_gets_it_as_it_comes() {
    let app = Origin::slow(Duration::from_millis(200), answer);
    let sidecar = Sidecar::start(app.address, PUBLIC).await;
    let ask = || get(&sidecar, "/list", &[ALL]);
    let replies = tokio::join!(ask(), ask(), ask(), ask());
    for reply in [&replies.0, &replies.1, &replies.2, &replies.3] {
        assert_eq!((reply.cache(), reply.header("content-encoding")), ("MISS", ""));
        assert_eq!(reply.text(), list(2000));
        assert!(varies_once(reply));
    }
    assert_eq!(app.seen("/list").len(), 1);
    let (_, hit) = fill(&sidecar, "/list", &[ALL]).await;
    assert_eq!((app.seen("/list").len(), decoded(&hit)), (1, list(2000)));
}

/// 1381. Guests share what is coded, and what sets cookies is compared before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1381_guests_share_what_is_coded() {
    let app = Origin::start(|request: &Request| {
        let response = answer(request);
        // A cookie that a signed-in caller gets is never stripped.
        let is_guest = request.header("cookie").is_none();
        if is_guest {
            response.header("set-cookie", &format!("sid={}", request.number))
        } else {
            response
        }
    });
    let rules = "[compress]\n[[routes]]\npath = \"/{name}\"\nttl = \"10m\"\n\
                 signed_in = { cookie = \"user\" }\nstrip_set_cookie = [\"sid\"]\n";
    let clock = Clock::manual();
    app.follow(&clock);
    let sidecar = Sidecar::start_at(clock.clone(), app.address, rules).await;
    let (first, hit) = fill(&sidecar, "/list", &[ALL]).await;
    assert_eq!((hit.header("content-encoding"), decoded(&hit)), ("zstd", first.text().into()));
    // The 304 sets a cookie as well, so the bytes have to be compared: they come anew.
    clock.advance(Duration::from_mins(11));
    let (anew, hit) = fill(&sidecar, "/list", &[ALL]).await;
    assert_eq!((anew.cache(), hit.header("content-encoding")), ("MISS", "zstd"));
    assert_eq!((decoded(&hit), hit.header("set-cookie")), (list(2000), ""));
    let own = [ALL, ("cookie", "user=1")];
    let (first, hit) = fill(&sidecar, "/page", &own).await;
    assert_eq!((hit.header("content-encoding"), &hit.body), ("", &first.body), "one caller's own");
}

/// 1382. What is coded outlives a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1382_what_is_coded_outlives_a_restart() {
    let app = Origin::start(answer);
    let folder = tempfile::TempDir::new().expect("a temporary directory can be made");
    let path = folder.path().join("snapshot");
    let rules = format!("[memory]\nsnapshot = \"{}\"\n{PUBLIC}", path.display());
    let clock = Clock::manual();
    let mut sidecar = Sidecar::start_at(clock.clone(), app.address, &rules).await;
    let (first, before) = fill(&sidecar, "/list", &[ALL]).await;
    sidecar.stop().await;
    sidecar.start_again(&clock).await;
    let confirmed = get(&sidecar, "/list", &[ALL]).await;
    assert_eq!((confirmed.cache(), &confirmed.body), ("REVALIDATED", &before.body));
    assert_eq!(app.seen("/list")[1].header("if-none-match").as_deref(), Some("\"1\""));
    let hit = get(&sidecar, "/list", &[ALL]).await;
    assert_eq!((hit.cache(), decoded(&hit)), ("HIT", first.text().into()));
}

/// 1383. A fill goes on until its response is stored, and whoever joins it gets what may be older
/// than the `ttl`. A body that would take long to compress is stored as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1383_a_long_body_is_stored_at_once_as_it_is() {
    let app = Origin::start(answer);
    let sidecar = Sidecar::start(app.address, PUBLIC).await;
    let (first, hit) = fill(&sidecar, "/long", &[ALL]).await;
    assert!(first.body.len() > 1 << 20);
    assert_eq!((hit.header("content-encoding"), &hit.body), ("", &first.body));
    assert_eq!((plain(&sidecar, "large").await, coded(&sidecar, "zstd").await), (1, 0));
    assert!(varies_once(&hit));
}
