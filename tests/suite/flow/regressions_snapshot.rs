//! Numbered regressions of the snapshot of the memory tier without Redis: what was fresh before a
//! restart is used again once the origin has confirmed it, and never before.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use sidecache::app::Clock;
use tempfile::TempDir;

use crate::support::scene::assert_cache;
use crate::support::{Client, Origin, Reply, Request, Response, Sidecar, metric};

const PUBLIC: &str = "[[routes]]\npath = \"/{*rest}\"\nttl = \"1h\"\nscope = \"public\"\n";

/// A sidecar with a snapshot, and what it needs.
struct Stage {
    origin: Origin,
    sidecar: Sidecar,
    clock: Clock,
    path: PathBuf,
    _folder: TempDir,
}

impl Stage {
    /// A sidecar inside the test with these keys of `[memory]` and these tables.
    async fn start(memory: &str, rules: &str, origin: Origin) -> Self {
        let (folder, path, text) = tables(memory, rules);
        let clock = Clock::manual();
        let sidecar = Sidecar::start_at(clock.clone(), origin.address, &text).await;
        Self { origin, sidecar, clock, path, _folder: folder }
    }

    /// A sidecar that runs the real binary, and whose log can be read.
    async fn spawn(memory: &str, rules: &str, origin: Origin) -> Self {
        let (folder, path, text) = tables(memory, rules);
        let sidecar = Sidecar::spawn_logged(origin.address, &text).await;
        Self { origin, sidecar, clock: Clock::system(), path, _folder: folder }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(path, &[]).await
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        Client::new(self.sidecar.address).get(path, headers).await
    }

    /// A first GET, which is stored.
    async fn fill(&self, path: &str) {
        assert_cache(&self.get(path).await, "MISS", path);
        assert_cache(&self.get(path).await, "HIT", path);
    }

    async fn restart(&mut self) {
        self.sidecar.stop().await;
        self.sidecar.start_again(&self.clock).await;
    }

    async fn metric(&self, name: &str) -> u64 {
        metric(self.sidecar.admin, name).await
    }

    async fn restored(&self) -> u64 {
        self.metric("sidecache_snapshot_restored_total").await
    }

    /// Whether the last request for this path asked the origin to confirm something.
    fn was_conditional(&self, path: &str) -> bool {
        let seen = self.origin.seen(path);
        let last = seen.last().expect("the origin was asked");
        last.header("if-none-match").is_some() || last.header("if-modified-since").is_some()
    }
}

fn tables(memory: &str, rules: &str) -> (TempDir, PathBuf, String) {
    let folder = TempDir::new().expect("a temporary directory can be made");
    let path = folder.path().join("snapshot");
    let text = format!("[memory]\nsnapshot = \"{}\"\n{memory}\n{rules}", path.display());
    (folder, path, text)
}

/// Answers with the version as the body and the entity-tag, and a 304 where the request has it.
fn version(version: &'static str) -> impl Fn(&Request) -> Response + Send + Sync {
    move |request| {
        let tag = format!("\"{version}\"");
        if request.header("if-none-match").as_ref() == Some(&tag) {
            return Response::status(304, "").header("etag", &tag);
        }
        Response::ok(version).header("etag", &tag).header("surrogate-key", "all-of-them")
    }
}

/// 780. A restarted sidecar was empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r780_what_was_fresh_is_used_again_once_the_origin_confirms_it() {
    let mut stage = Stage::start("", PUBLIC, Origin::start(version("1"))).await;
    for path in ["/same", "/changed", "/head"] {
        stage.fill(path).await;
    }
    stage.origin.answers(|_| Response::ok("no validator"));
    stage.fill("/bare").await;
    stage.origin.answers(|_| {
        let lasting = "max-age=3600";
        Response::status(404, "none").header("etag", "\"1\"").header("cache-control", lasting)
    });
    stage.fill("/none").await;
    stage.origin.answers(version("1"));
    stage.restart().await;
    assert_eq!(stage.restored().await, 3, "what the origin cannot confirm is left out");

    let reply = stage.get("/same").await;
    assert!(reply.is("REVALIDATED", "1"), "{}", reply.cache_status());
    assert!(reply.cache_status().contains("fwd=stale"), "{}", reply.cache_status());
    assert!(stage.was_conditional("/same"));
    let reply = stage.get("/same").await;
    assert!(reply.is("HIT", "1"), "confirmed once: {}", reply.cache_status());

    let mut client = Client::new(stage.sidecar.address);
    let head = client.send("HEAD", "/head", &[], "").await;
    assert_ne!(head.cache(), "HIT", "a HEAD is no use before its time either");

    // Somebody has written while nobody listened.
    stage.origin.answers(version("2"));
    let reply = stage.get("/changed").await;
    assert!(reply.is("MISS", "2"), "{}", reply.cache_status());
    for path in ["/bare", "/none"] {
        let reply = stage.get(path).await;
        assert!(reply.is("MISS", "2") && !stage.was_conditional(path), "{path}");
    }
}

/// 781. What was restored must not stand in for an origin that fails, nor be served while it is
///      confirmed: it may have been written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r781_nothing_restored_is_served_unconfirmed() {
    let rules = format!(
        "[limits]\nstale = \"1h\"\n{PUBLIC}stale_while_revalidate = \"1h\"\nstale_if_error = \
         \"1h\"\n"
    );
    let mut stage = Stage::start("", &rules, Origin::start(version("1"))).await;
    for path in ["/cached-only", "/fails", "/gone", "/ranged"] {
        stage.fill(path).await;
    }
    stage.restart().await;
    assert_eq!(stage.restored().await, 4);
    let reply = stage.ask("/cached-only", &[("cache-control", "only-if-cached")]).await;
    assert_eq!(reply.status, 504, "{}", reply.text());
    let reply = stage.ask("/cached-only", &[("cache-control", "max-stale=9999")]).await;
    assert_cache(&reply, "REVALIDATED", "max-stale");
    stage.origin.answers(version("2"));
    let reply = stage.ask("/ranged", &[("range", "bytes=0-0")]).await;
    assert_eq!(reply.text(), "2", "{}", reply.cache_status());
    stage.origin.answers(|_| Response::status(503, "down"));
    let reply = stage.get("/fails").await;
    assert_eq!((reply.status, reply.text()), (503, "down"), "{}", reply.cache_status());
    stage.origin.answers(|_| Response::hang_up());
    let reply = stage.get("/gone").await;
    assert_eq!(reply.status, 502, "{}", reply.cache_status());
    // What was confirmed has its windows again.
    stage.origin.answers(version("1"));
    assert_cache(&stage.get("/gone").await, "REVALIDATED", "it was kept");
    stage.clock.advance(Duration::from_secs(3_601));
    stage.origin.answers(|_| Response::hang_up());
    assert_cache(&stage.get("/gone").await, "STALE", "within its window");
}

/// 782. A purge in the new process ends what was restored, confirmed or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r782_a_purge_ends_what_was_restored() {
    let rules = format!("[tags]\nresponse_headers = [\"surrogate-key\"]\n{PUBLIC}tags = [\"r\"]\n");
    for (tag, confirmed) in
        [("all-of-them", false), ("all-of-them", true), ("r", false), ("r", true)]
    {
        let mut stage = Stage::start("", &rules, Origin::start(version("1"))).await;
        stage.fill("/a").await;
        stage.restart().await;
        assert_eq!(stage.restored().await, 1);
        if confirmed {
            // The 304 does not name the tag again.
            assert_cache(&stage.get("/a").await, "REVALIDATED", tag);
            assert_cache(&stage.get("/a").await, "HIT", tag);
        }
        stage.sidecar.admin_ok("/purge", &json!({ "tags": [tag] })).await;
        let reply = stage.get("/a").await;
        assert_cache(&reply, "MISS", &format!("{tag}, confirmed: {confirmed}"));
        assert!(!stage.was_conditional("/a"));
    }
}

/// 783. Variants are restored with what tells them apart, and stay within their limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r783_variants_are_restored_as_such() {
    let rules = format!("[limits]\nvariants = 2\n{PUBLIC}pass_headers = [\"x-kind\"]\n");
    let answer = |request: &Request| {
        let kind = request.header("x-kind").unwrap_or_default();
        let tag = format!("\"{kind}\"");
        let response = if request.header("if-none-match").as_ref() == Some(&tag) {
            Response::status(304, "")
        } else {
            Response::ok(kind)
        };
        response.header("etag", &tag).header("vary", "x-kind")
    };
    let mut stage = Stage::start("", &rules, Origin::start(answer)).await;
    let get = async |stage: &Stage, kind: &str| stage.ask("/v", &[("x-kind", kind)]).await;
    for kind in ["a", "b"] {
        assert_cache(&get(&stage, kind).await, "MISS", kind);
        assert_cache(&get(&stage, kind).await, "HIT", kind);
    }
    stage.restart().await;
    assert_eq!(stage.restored().await, 2);
    for kind in ["a", "b"] {
        let reply = get(&stage, kind).await;
        assert!(reply.is("REVALIDATED", kind), "{kind}: {}", reply.cache_status());
    }
    stage.restart().await;
    // The third one takes the place of one of the restored ones.
    assert_cache(&get(&stage, "c").await, "MISS", "new");
    assert_eq!(stage.metric("sidecache_limit_reached_total{limit=\"limits.variants\"}").await, 1);
}

/// 784. Whatever is wrong with the file costs one line and a cold start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r784_a_file_that_cannot_be_used_costs_one_line() {
    let origin = Origin::start(version("1"));
    let mut stage = Stage::spawn("snapshot_size = \"8KiB\"", PUBLIC, origin).await;
    stage.fill("/a").await;
    stage.sidecar.stop().await;
    let whole = std::fs::read(&stage.path).expect("it was written");
    let put = |stage: &Stage, bytes: &[u8]| {
        std::fs::write(&stage.path, bytes).expect("the folder can be written to");
        let private = Permissions::from_mode(0o600);
        std::fs::set_permissions(&stage.path, private).expect("it is ours");
    };
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let last = whole.len() - 1;
    let cases = [
        ("broken", whole[..last].to_vec()),
        ("broken", whole[..100].to_vec()),
        ("broken", flipped(last)),
        ("broken", flipped(whole.len() / 2)),
        ("version", flipped(5)),
        ("configuration", flipped(20)),
        ("too_large", [&whole[..], &[0; 8192]].concat()),
        ("foreign", b"[upstream]\n".to_vec()),
        ("foreign", Vec::new()),
    ];
    let mut warned = 0;
    for (reason, bytes) in cases {
        put(&stage, &bytes);
        stage.sidecar.start_again(&stage.clock).await;
        assert_eq!(stage.restored().await, 0, "{reason}");
        let name = format!("sidecache_snapshot_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(stage.metric(&name).await, 1, "{reason}");
        let reply = stage.get("/a").await;
        assert!(reply.is("MISS", "1") && !stage.was_conditional("/a"), "{reason}");
        let said = stage.sidecar.said();
        let lines: Vec<&str> =
            said.lines().filter(|line| line.contains("the snapshot is not used")).collect();
        warned += 1;
        assert_eq!(lines.len(), warned, "{reason}: {said}");
        let line = lines[warned - 1];
        assert!(line.contains(reason) && line.contains("WARN"), "{said}");
        let is_left = stage.path.exists();
        assert_eq!(is_left, reason == "foreign", "{reason}: a snapshot is gone once it was read");
        stage.sidecar.crash();
    }
    let folder = stage.path.with_extension("folder");
    std::fs::create_dir(&folder).expect("the folder can be written to");
    for target in [Path::new("/dev/zero"), &folder] {
        let _ = std::fs::remove_file(&stage.path);
        symlink(target, &stage.path).expect("a link can be made");
        stage.sidecar.start_again(&stage.clock).await;
        let name = "sidecache_snapshot_refused_total{reason=\"unsafe\"}";
        assert_eq!(stage.metric(name).await, 1);
        // It does not get into the way of the end either.
        stage.sidecar.stop().await;
        assert!(stage.path.is_symlink());
        assert!(stage.sidecar.said().contains("no snapshot is written"));
    }
    std::fs::remove_file(&stage.path).expect("the link is still there");
    put(&stage, &whole);
    stage.sidecar.start_again(&stage.clock).await;
    assert_eq!(stage.restored().await, 1, "nothing else was wrong");
}

/// 785. Entries of another origin, or of a route with another policy, are not restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r785_another_configuration_makes_it_void() {
    let other = Origin::start(version("1"));
    for (before, after, restored) in [
        ("ttl = \"1h\"", "ttl = \"1h\"\njitter = \"1s\"", 1),
        ("ttl = \"1h\"", "ttl = \"2h\"", 0),
        ("scope = \"public\"", "scope = \"shared\"", 0),
        ("http://ORIGIN\"", "http://OTHER\"", 0),
        ("http://ORIGIN\"", "http://ORIGIN\"\nhost = \"upstream\"", 0),
    ] {
        let mut stage = Stage::start("", PUBLIC, Origin::start(version("1"))).await;
        stage.fill("/a").await;
        stage.sidecar.stop().await;
        let own = stage.origin.address.to_string();
        let text = std::fs::read_to_string(&stage.sidecar.file).expect("its file");
        let replaced =
            |text: &str| text.replace("ORIGIN", &own).replace("OTHER", &other.address.to_string());
        assert!(text.contains(&replaced(before)), "{text}");
        let text = text.replace(&replaced(before), &replaced(after));
        std::fs::write(&stage.sidecar.file, text).expect("its folder can be written to");
        stage.sidecar.start_again(&stage.clock).await;
        assert_eq!(stage.restored().await, restored, "{after}");
    }
}

/// 786. A snapshot is used once: after a crash the sidecar is empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r786_a_snapshot_is_used_once() {
    let mut stage = Stage::spawn("", PUBLIC, Origin::start(version("1"))).await;
    stage.fill("/a").await;
    stage.restart().await;
    assert_eq!((stage.restored().await, stage.path.exists()), (1, false));
    stage.sidecar.crash();
    stage.sidecar.start_again(&stage.clock).await;
    assert_eq!(stage.restored().await, 0);
    assert_cache(&stage.get("/a").await, "MISS", "after a crash");
    // A start that fails does not use it up.
    stage.sidecar.stop().await;
    assert!(stage.path.exists());
    let taken = std::net::TcpListener::bind(stage.sidecar.admin).expect("the port is free");
    let failed = std::process::Command::new(env!("CARGO_BIN_EXE_sidecache"))
        .arg("--config")
        .arg(&stage.sidecar.file)
        .output()
        .expect("the binary was built with the tests");
    assert!(!failed.status.success() && stage.path.exists());
    drop(taken);
    stage.sidecar.start_again(&stage.clock).await;
    assert_eq!(stage.restored().await, 1);
}

/// 787. What is stored for one client stays in memory, and the file is private.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r787_what_is_stored_for_one_client_is_left_out() {
    let rules = "[fields]\nwho = { auth = \"token\" }\n\
        [[routes]]\npath = \"/private/{*rest}\"\nttl = \"1h\"\n\
        [[routes]]\npath = \"/field/{*rest}\"\nttl = \"1h\"\nscope = \"shared\"\nkey = [\"who\"]\n";
    let answer = |request: &Request| {
        let caller = request.header("authorization").unwrap_or_default();
        Response::ok(format!("a page for {caller}.")).header("etag", "\"1\"")
    };
    let mut stage = Stage::start("", rules, Origin::start(answer)).await;
    let caller = ("authorization", "Bearer hunter2hunter2");
    for path in ["/private/a", "/field/a"] {
        for cache in ["MISS", "HIT"] {
            assert_cache(&stage.ask(path, &[caller]).await, cache, path);
        }
    }
    stage.fill("/private/anonymous").await;
    stage.sidecar.stop().await;
    let mode = std::fs::metadata(&stage.path).expect("it was written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let bytes = std::fs::read(&stage.path).expect("it is ours");
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("a page for .") && !has("hunter2"));
    stage.sidecar.start_again(&stage.clock).await;
    assert_eq!(stage.restored().await, 1);
    for path in ["/private/a", "/field/a"] {
        let reply = stage.ask(path, &[caller]).await;
        assert_cache(&reply, "MISS", path);
        assert!(!stage.was_conditional(path));
    }
}

/// 788. The size and the time of a snapshot are bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r788_size_and_time_are_bounded() {
    let large = |request: &Request| {
        let tag = "\"1\"".to_owned();
        if request.header("if-none-match").as_ref() == Some(&tag) {
            return Response::status(304, "");
        }
        Response::ok(vec![b'x'; 4096]).header("etag", &tag)
    };
    let size = "snapshot_size = \"16KiB\"";
    let mut stage = Stage::spawn(size, PUBLIC, Origin::start(large)).await;
    for number in 0..8 {
        stage.fill(&format!("/{number}")).await;
    }
    stage.sidecar.stop().await;
    let length = std::fs::metadata(&stage.path).expect("it was written").len();
    assert!((8_192..=16_384).contains(&length), "{length}");
    let said = stage.sidecar.said();
    assert!(said.contains("entries=3") && said.contains("size 5"), "{said}");
    // A smaller memory takes less of it.
    let text = std::fs::read_to_string(&stage.sidecar.file).expect("its file");
    let smaller = text.replace(size, "snapshot_size = \"8KiB\"");
    std::fs::write(&stage.sidecar.file, smaller).expect("its folder can be written to");
    stage.sidecar.start_again(&stage.clock).await;
    assert_eq!(stage.restored().await, 0);
    let limit = |name: &str| format!("sidecache_limit_reached_total{{limit=\"memory.{name}\"}}");
    assert_eq!(stage.metric(&limit("snapshot_size")).await, 1);
    assert_eq!(stage.metric(&limit("snapshot_time")).await, 0);
    stage.sidecar.crash();
    // A FIFO would keep a reader waiting for ever.
    let made = std::process::Command::new("mkfifo").arg(&stage.path).status();
    assert!(made.expect("mkfifo is there").success());
    stage.sidecar.start_again(&stage.clock).await;
    assert_cache(&stage.get("/0").await, "MISS", "it serves");
}

/// Not a test of a promise: the share of hits in the first requests after a restart. `cargo nextest
/// run --no-capture -E 'test(figure_hits_after_a_restart)'` prints it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figure_hits_after_a_restart() {
    const PAGES: u64 = 200;
    const REQUESTS: u64 = 1_000;
    for (name, memory) in [("without", None), ("with", Some(""))] {
        let body = vec![b'x'; 16 * 1024];
        let origin = Origin::start(move |request| {
            if request.header("if-none-match").is_some() {
                return Response::status(304, "");
            }
            Response::ok(body.clone()).header("etag", "\"1\"")
        });
        let mut stage = Stage::start(memory.unwrap_or_default(), PUBLIC, origin).await;
        for page in 0..PAGES {
            stage.fill(&format!("/{page}")).await;
        }
        stage.sidecar.stop().await;
        if memory.is_none() {
            std::fs::remove_file(&stage.path).expect("it was written");
        }
        stage.sidecar.start_again(&stage.clock).await;
        let mut client = Client::new(stage.sidecar.address);
        let (mut hits, mut confirmed) = (0, 0);
        for number in 0..REQUESTS {
            // The square makes some pages popular, as pages are.
            let page = (number * number * 7) % (PAGES * PAGES) / PAGES;
            match client.get(&format!("/{page}"), &[]).await.cache() {
                "HIT" => hits += 1,
                "REVALIDATED" => confirmed += 1,
                _ => {}
            }
        }
        let whole = REQUESTS - hits - confirmed;
        println!("{name} a snapshot: {hits} hits, {confirmed} confirmed, {whole} whole bodies");
        assert_eq!(whole == 0, memory.is_some());
    }
}
