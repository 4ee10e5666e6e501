//! Keys: which requests share one, whom a scope keeps apart, and what the origin receives on a
//! fill.

use super::*;

#[test]
fn private_keys_differ_by_the_whole_credential() {
    let rules = rules(
        "[credential]\nheaders = [\"x-api-key\"]\ncookies = [\"sid\"]\n[[routes]]\npath = \
        \"/a\"\nttl = \"5m\"\n",
    );
    let get = || SentRequest::get("/a");
    let all = [
        get(),
        get().with("authorization", "Bearer a"),
        get().with("authorization", "Bearer b"),
        get().with("authorization", "Basic a"),
        get().with("cookie", "sid=a"),
        get().with("cookie", "sid=b"),
        get().with("x-api-key", "a"),
        get().with("x-api-key", "b"),
        get().with("authorization", "Bearer a").with("cookie", "sid=a"),
        get().with("authorization", "Bearer a").with("x-api-key", "a"),
        get().with("cookie", "sid=a").with("x-api-key", "a"),
    ];
    let keys: Vec<Vec<u8>> = all.iter().map(|sent| key(&rules, sent)).collect();
    for (at, one) in keys.iter().enumerate() {
        assert!(!keys[at + 1..].contains(one), "{:?} shares its key", all[at]);
    }
    // Cookies of analytics count for nothing, and do not reach the origin. All others do both.
    let counted = get().with("cookie", "_ga=1; sid=a");
    assert_eq!(key(&rules, &counted), keys[4]);
    assert_eq!(filled(&rules, &counted, "cookie").as_deref(), Some("sid=a"));
    assert_eq!(filled(&rules, &get().with("cookie", "_ga=1"), "cookie"), None);
    assert_eq!(key(&rules, &get().with("cookie", "_ga=1")), keys[0]);
    let themed = get().with("cookie", "_ga=1; sid=a; theme=dark");
    assert!(!keys.contains(&key(&rules, &themed)));
    assert_eq!(filled(&rules, &themed, "cookie").as_deref(), Some("sid=a; theme=dark"));
}

#[test]
fn without_named_cookies_the_whole_cookie_is_the_credential() {
    let rules = with_route("");
    let with = |cookie: &str| SentRequest::get("/a/1").with("cookie", cookie);
    assert_ne!(key(&rules, &with("sid=a; theme=dark")), key(&rules, &with("sid=a; theme=light")));
    assert_eq!(
        filled(&rules, &with("sid=a; theme=dark"), "cookie").as_deref(),
        Some("sid=a; theme=dark")
    );
}

#[test]
fn shared_keys_are_the_same_and_authorizations_are_not() {
    let rules = with_route("scope = \"shared\"\nkey = [\"tenant\"]");
    let alice =
        SentRequest::get("/a/1").with("x-tenant-id", "acme").with("authorization", "Bearer alice");
    let bob =
        SentRequest::get("/a/1").with("x-tenant-id", "acme").with("authorization", "Bearer bob");
    let nobody = SentRequest::get("/a/1").with("x-tenant-id", "acme");
    let other =
        SentRequest::get("/a/1").with("x-tenant-id", "other").with("authorization", "Bearer alice");
    let by_cookie =
        SentRequest::get("/a/1").with("x-tenant-id", "acme").with("cookie", "sid=alice");
    assert_eq!(key(&rules, &alice), key(&rules, &bob));
    assert_eq!(key(&rules, &alice), key(&rules, &nobody));
    assert_eq!(key(&rules, &alice), key(&rules, &by_cookie));
    assert_ne!(key(&rules, &alice), key(&rules, &other));
    let all = [&alice, &bob, &nobody, &other, &by_cookie]
        .map(|sent| lookup(&rules, sent).authorization.expect("shared routes authorize"));
    for (at, one) in all.iter().enumerate() {
        assert!(!all[at + 1..].contains(one), "authorization {at} is not unique");
    }
    // The origin receives the credential, because it decides whether to accept it.
    assert_eq!(filled(&rules, &alice, "authorization").as_deref(), Some("Bearer alice"));
    assert_eq!(filled(&rules, &by_cookie, "cookie").as_deref(), Some("sid=alice"));
    // An authorization does not hold for another host; it does for another page of the same route.
    let mut elsewhere = alice.clone();
    elsewhere.headers.insert(HOST, HeaderValue::from_static("other.test"));
    assert_ne!(lookup(&rules, &elsewhere).authorization, lookup(&rules, &alice).authorization);
}

#[test]
fn public_ignores_credentials_and_withholds_them() {
    let toml = "[credential]\nheaders = [\"x-api-key\"]\n[[routes]]\npath = \"/a\"\nttl = \
        \"5m\"\nscope = \"public\"\n";
    let rules = rules(toml);
    let known = SentRequest::get("/a")
        .with("authorization", "Bearer a")
        .with("cookie", "sid=a")
        .with("x-api-key", "a");
    assert_eq!(key(&rules, &known), key(&rules, &SentRequest::get("/a")));
    let found = lookup(&rules, &known);
    assert!(found.credential.is_none() && found.authorization.is_none());
    for name in ["authorization", "cookie", "x-api-key"] {
        assert_eq!(filled(&rules, &known, name), None, "{name} reaches the origin");
    }
    let rules = with_route("scope = \"public\"\nkey = [\"lang\"]");
    let sent = SentRequest::get("/a/1").with("cookie", "sid=a; lang=de");
    assert_eq!(
        filled(&rules, &sent, "cookie").as_deref(),
        Some("lang=de"),
        "only the cookies of the key"
    );
    assert_eq!(
        key(&rules, &sent),
        key(&rules, &SentRequest::get("/a/1").with("cookie", "lang=de; sid=b"))
    );
    assert_ne!(
        key(&rules, &sent),
        key(&rules, &SentRequest::get("/a/1").with("cookie", "lang=en; sid=a"))
    );
}

#[test]
fn tokens_with_a_common_prefix_never_share_a_private_key() {
    for kind in ["\"token\"", "\"prefix\", length = 20"] {
        let rules = rules(&format!(
            "[fields]\ntoken = {{ auth = {kind} }}\n[[routes]]\npath = \"/a\"\nttl = \"5m\"\nkey \
            = [\"token\"]\n"
        ));
        for common in [20, 36, 100] {
            for start in ["", "eyJ"] {
                let token =
                    |end: &str| format!("Bearer {start}{}{end}", "x".repeat(common - start.len()));
                let [one, two] =
                    ["a", "b"].map(|end| SentRequest::get("/a").with("authorization", &token(end)));
                assert_ne!(
                    key(&rules, &one),
                    key(&rules, &two),
                    "{kind}, {common} characters alike"
                );
                assert_eq!(key(&rules, &one), key(&rules, &one.clone()));
            }
        }
        assert_eq!(verdict(&rules, &SentRequest::get("/a")), "missing field token");
        // A cookie is in the key as well.
        let token = SentRequest::get("/a").with("authorization", "Bearer a");
        assert_ne!(key(&rules, &token), key(&rules, &token.clone().with("cookie", "sid=a")));
    }
}

#[test]
fn the_route_decides_which_parameters_are_in_the_key() {
    let all = with_route("");
    let [one, two] = ["/a/1?x=1&y=2", "/a/1?y=2&x=1"].map(SentRequest::get);
    assert_ne!(key(&all, &one), key(&all, &two), "the origin may depend on the order");
    assert_ne!(key(&all, &SentRequest::get("/a/1?")), key(&all, &SentRequest::get("/a/1?x")));
    assert_eq!(target(&all, &one), "/a/1?x=1&y=2");

    let none = with_route("query = \"none\"");
    assert_eq!(key(&none, &one), key(&none, &SentRequest::get("/a/1")));
    assert_eq!(
        target(&none, &one),
        "/a/1",
        "the origin receives only the query that is in the key"
    );

    let only = with_route("query = [\"page\", \"limit\"]");
    let picked = |query: &str| SentRequest::get(&format!("/a/1?{query}"));
    assert_eq!(key(&only, &picked("limit=2&utm=1&page=1")), key(&only, &picked("page=1&limit=2")));
    assert_eq!(target(&only, &picked("limit=2&utm=1&page=1")), "/a/1?page=1&limit=2");
    assert_ne!(key(&only, &picked("page=1")), key(&only, &picked("page=2")));
    assert_ne!(key(&only, &picked("page=1")), key(&only, &picked("limit=1")));
    assert_eq!(key(&only, &picked("utm=1")), key(&only, &SentRequest::get("/a/1")));
    assert_eq!(target(&only, &picked("utm=1")), "/a/1");
    for cloaked in [
        "page=1&page=2",
        "utm=1;page=2",
        "page=1&%70age=2",
        "page[]=1",
        "page[a]=1",
        "page=%zz",
        "page=%00",
        "utm=1;page=2&page=1",
    ] {
        assert_eq!(verdict(&only, &picked(cloaked)), "ambiguous query", "{cloaked}");
    }
}

#[test]
fn some_headers_are_always_in_the_key() {
    let rules = with_route("");
    let plain = key(&rules, &SentRequest::get("/a/1"));
    assert_eq!(
        key(&rules, &SentRequest::get("/a/1").with("accept", "*/*")),
        plain,
        "the same as no Accept"
    );
    for (name, one, two) in [
        ("accept", "text/html", "application/json"),
        ("origin", "https://a.test", "https://b.test"),
        ("x-requested-with", "XMLHttpRequest", "fetch"),
        ("content-type", "text/plain", "text/html"),
    ] {
        let [one, two] = [one, two].map(|value| SentRequest::get("/a/1").with(name, value));
        assert_ne!(key(&rules, &one), plain, "{name}");
        assert_ne!(key(&rules, &one), key(&rules, &two), "{name}");
        assert_eq!(
            filled(&rules, &one, name).as_deref(),
            one.headers.get(name).map(|value| value.to_str().unwrap())
        );
    }
    // The order of different headers does not matter.
    let one = SentRequest::get("/a/1").with("accept", "text/html").with("origin", "https://a.test");
    let two = SentRequest::get("/a/1").with("origin", "https://a.test").with("accept", "text/html");
    assert_eq!(key(&rules, &one), key(&rules, &two));
}

#[test]
fn forwarded_headers_count_only_from_a_trusted_proxy() {
    let rules = with_route("");
    let forwarded = || SentRequest::get("/a/1").with("x-forwarded-host", "evil.test");
    assert_eq!(verdict(&rules, &forwarded()), "unkeyed header x-forwarded-host");
    assert_eq!(verdict(&rules, &forwarded().trusted()), "lookup");
    assert_ne!(
        key(&rules, &forwarded().trusted()),
        key(&rules, &SentRequest::get("/a/1").trusted())
    );
    let other = SentRequest::get("/a/1").with("x-forwarded-host", "good.test").trusted();
    assert_ne!(key(&rules, &forwarded().trusted()), key(&rules, &other));
    assert_eq!(
        filled(&rules, &forwarded().trusted(), "x-forwarded-host").as_deref(),
        Some("evil.test")
    );
    for name in
        ["x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-scheme"]
    {
        assert_eq!(
            verdict(&rules, &SentRequest::get("/a/1").with(name, "1")),
            format!("unkeyed header {name}")
        );
        assert_eq!(verdict(&rules, &SentRequest::get("/a/1").with(name, "1").trusted()), "lookup");
    }
}

#[test]
fn case_counts_in_a_path_unless_its_route_says_otherwise() {
    let route =
        |path: &str, more: &str| format!("[[routes]]\npath = \"{path}\"\nttl = \"5m\"\n{more}\n");
    let ignore = "case = \"ignore\"";
    let rules = rules(
        &[
            route("/Api/items/{id}", ignore),
            route("/exact/{id}", ""),
            route("/Api/items/Best", ""),
            route("/api/{kind}/{*rest}", ""),
            route("/files/{*rest}", ignore),
        ]
        .concat(),
    );
    let found = |target: &str| {
        let get = SentRequest::get(target);
        let lookup = lookup(&rules, &get);
        (lookup.route.name().to_owned(), lookup.path().to_owned())
    };
    for (target, name, path) in [
        ("/Api/items/7", "/Api/items/{id}", "/Api/items/7"),
        ("/aPI/ITEMS/aB", "/Api/items/{id}", "/Api/items/aB"),
        ("/Api/items/Best", "/Api/items/Best", "/Api/items/Best"),
        ("/api/items/Best", "/Api/items/{id}", "/Api/items/Best"),
        ("/api/items/7/x", "/api/{kind}/{*rest}", "/api/items/7/x"),
        ("/FILES", "/files/{*rest}", "/files"),
        ("/Files/", "/files/{*rest}", "/files/"),
        ("/Files/A/b", "/files/{*rest}", "/files/A/b"),
        ("/exact/7", "/exact/{id}", "/exact/7"),
    ] {
        assert_eq!(found(target), (name.to_owned(), path.to_owned()), "{target}");
    }
    assert_eq!(verdict(&rules, &SentRequest::get("/Exact/7")), "no route");
    let [one, two] = ["/Api/items/7", "/API/ITEMS/7"].map(SentRequest::get);
    assert_eq!(key(&rules, &one), key(&rules, &two));
    assert_eq!(target(&rules, &two), "/Api/items/7", "the origin gets what the key has");
    assert_ne!(key(&rules, &one), key(&rules, &SentRequest::get("/Api/items/8")));
}

#[test]
fn one_host_may_stand_for_all_in_keys_and_fills_alike() {
    const ROUTE: &str = "[fields]\nat = { host = true }\n[[routes]]\npath = \"/a\"\nttl = \"5m\"\n\
        key = [\"at\"]\nquery = \"none\"\n";
    let of = |host: &str| {
        let mut sent = SentRequest::get("/a");
        sent.headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        sent
    };
    let hosts = ["localhost:8080", "localhost:8081", "Other.Test"].map(of);
    let apart = rules(ROUTE);
    let keys = hosts.each_ref().map(|sent| key(&apart, sent));
    assert!(keys[0] != keys[1] && keys[1] != keys[2]);
    let one = rules_with("host_key = \"App.Test:80\"", ROUTE);
    for sent in &hosts {
        assert_eq!(key(&one, sent), key(&one, &hosts[0]));
        // The origin must not see whose host it was.
        for name in ["host", "x-forwarded-host"] {
            assert_eq!(filled(&one, sent, name).as_deref(), Some("app.test:80"), "{name}");
        }
        let forwarded = filled(&one, sent, "forwarded").unwrap();
        assert!(forwarded.contains("host=\"app.test:80\""), "{forwarded}");
        let tags = lookup(&one, sent).tags();
        assert!(tags.contains(&Tag::for_uri("app.test:80", "/a")), "{tags:?}");
    }
    let upstream = rules_with("host_key = \"app.test\"\nhost = \"upstream\"", ROUTE);
    assert_eq!(filled(&upstream, &hosts[0], "x-forwarded-host").as_deref(), Some("app.test"));
}

#[test]
fn writes_to_every_host_purge_what_one_host_stands_for() {
    let rules = rules_with("host_key = \"app.test\"", "[[routes]]\npath = \"/a\"\nttl = \"5m\"\n");
    for (method, host) in [("PUT", "localhost:8081"), ("DELETE", "app.test"), ("MOVE", "x:1")] {
        let mut sent = SentRequest::new(method, "/a").with("destination", "http://x:1/b");
        sent.headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        let mutation = rules.mutation(&sent.view(), &sent.method, None).unwrap();
        assert!(mutation.tags.contains(&Tag::for_uri("app.test", "/a")), "{method}");
        let target = mutation.tags.contains(&Tag::for_uri("app.test", "/b"));
        assert_eq!(target, method == "MOVE", "{method}");
    }
}

/// With `[compress]` the key has the one coding that the client gets, so that whoever gets it
/// shares it.
#[test]
fn a_route_that_codes_has_one_key_for_each_coding() {
    let route = "[[routes]]\npath = \"/a\"\nttl = \"5m\"\nscope = \"public\"\n";
    let coding = rules(&format!("[compress]\n{route}"));
    let get = || SentRequest::get("/a");
    let with = |accepted| get().with("accept-encoding", accepted);
    let plain = key(&coding, &get());
    for (accepted, sent) in [
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.1", "zstd"),
        ("gzip, deflate, br", "br"),
        ("br;q=0.1, gzip", "gzip"),
        ("deflate", "identity"),
        ("gzip;q=0", "identity"),
    ] {
        let got = filled(&coding, &with(accepted), "accept-encoding");
        assert_eq!(got.as_deref(), Some(sent), "{accepted}");
        assert_eq!(key(&coding, &with(accepted)) == plain, sent == "identity", "{accepted}");
    }
    assert_eq!(key(&coding, &with("gzip, zstd")), key(&coding, &with("br, zstd")));
    for (name, value) in [("cache-control", "max-age=9, no-transform"), ("range", "bytes=0-1")] {
        assert_eq!(key(&coding, &with("gzip").with(name, value)), plain, "{name}");
    }
    // Others neither find what such a route stores, nor the other way around.
    let without = rules(route);
    assert_ne!(key(&without, &get()), plain);
    assert_ne!(key(&without, &with("gzip")), key(&coding, &with("gzip")));
    let left_out = rules(&format!("[compress]\n{route}compress = false\n"));
    assert_eq!(key(&left_out, &get()), key(&without, &get()));
    // What tags are read from comes as it is.
    let tagged = rules(&format!("[compress]\n{route}tags = [\"a:{{response:/id}}\"]\n"));
    assert_eq!(filled(&tagged, &with("br"), "accept-encoding").as_deref(), Some("identity"));
    assert_ne!(key(&tagged, &with("br")), key(&tagged, &with("gzip")));
}
