//! One file for each kind of diagnostic: its position, and part of its text.

use std::time::Duration;

use http::HeaderName;

use super::{diagnostics, parse};
use crate::policy::route::Collapse;
use crate::upstream::UpstreamAddress;

/// Puts lines into a file that is otherwise right: `{}` stands for them at its top, after
/// `[upstream]`.
pub(super) fn with(lines: &str) -> String {
    format!(
        "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[fields]\ntenant = {{ header = \
         \"x-tenant-id\" }}\nuser = {{ auth = \"token\" }}\nform = {{ body = \"/id\" }}\n{lines}"
    )
}

const LINE: usize = 7;

/// Expects exactly one error, in this line of the given lines (from 1) and column, with this text
/// in its drawing.
pub(super) fn one(lines: &str, line: usize, column: usize, text: &str) {
    let diagnostics = diagnostics(&with(lines));
    let errors: Vec<_> = diagnostics.errors().collect();
    assert_eq!(errors.len(), 1, "{lines}\n{diagnostics}");
    assert_eq!(
        (errors[0].line + 1, errors[0].column),
        (line + LINE, column),
        "{lines}\n{diagnostics}"
    );
    assert!(diagnostics.to_string().contains(text), "{text}: {diagnostics}");
}

pub(super) fn warning(lines: &str, line: usize, text: &str) {
    let config = parse(&with(lines)).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let found = config
        .warnings
        .iter()
        .any(|warning| warning.line + 1 == line + LINE && warning.to_string().contains(text));
    assert!(found, "{text}: {:?}", config.warnings);
}

pub(super) fn route(keys: &str, line: usize, column: usize, text: &str) {
    one(&format!("[[routes]]\npath = \"/a/{{id}}\"\n{keys}\n"), line + 2, column, text);
}

#[test]
fn sections() {
    one("[listen]\naddress = \":8080\"", 2, 11, "\"0.0.0.0:8080\"");
    one("[listen]\naddress = \"http://127.0.0.1:80\"", 2, 11, "remove the scheme");
    one("[listen]\ntrusted_proxies = [\"10.0.0.0/8\", \"proxy\"]", 2, 34, "is not a network");
    one("[listen]\nidle_timeout = \"0s\"", 2, 16, "1ms to 1d");
    one("[listen]\nmax_streams = 0", 2, 15, "1 to 10000");
    one("[listen]\nmax_streams = -1", 2, 15, "negative");
    one("[listen]\nmax_streams = \"5\"", 2, 15, "remove the quotes");
    one("[listen]\naddress = 8080", 2, 11, "put it in quotes");
    one("[listen]\ndrain = 5", 2, 9, "\"5s\"");
    one("[listen]\nadress = \"127.0.0.1:1\"", 2, 1, "did you mean `address`?");
    one("[listen]\naddress = \"127.0.0.1:9090\"", 2, 11, "the same address");
    one("[admin]\naddress = \"0.0.0.0:9090\"", 2, 11, "no token");
    one("[admin]\ntoken = \"short\"", 2, 9, "16 characters");
    one(
        "[admin]\ntoken = \"0123456789abcdef\"\ntoken_file = \"/dev/null\"",
        3,
        14,
        "remove one of the two",
    );
    one("[memory]\nsize = \"0\"", 2, 8, "nothing can be stored");
    one("[memory]\nsize = \"1kB\"", 2, 8, "1MiB to 64TiB");
    one("[memory]\nsize = 256", 2, 8, "\"256B\"");
    one("[log]\nlevel = \"debgu\"", 2, 9, "not a level");
    one("[log]\nformat = \"jsn\"", 2, 10, "did you mean \"json\"?");
    one("[log]\naccess = \"true\"", 2, 10, "remove the quotes");
    one("[limits]\ntags = 0", 2, 8, "1 to 4096");
    one("[limits]\nobject = \"1.5MiB\"", 2, 10, "smaller unit");
    one("[limits]\nvariants = 0", 2, 12, "1 to 1024");
    one("[limits]\nvariants = 1025", 2, 12, "the nearest allowed value is 1024");
    one("[limits]\nranges = 0", 2, 10, "1 to 256");
    one("[limits]\nranges = 257", 2, 10, "the nearest allowed value is 256");
    one("[limits]\nstale = \"31d\"", 2, 9, "0s to 30d");
    one("[limits]\nrange_fill = 5", 2, 14, "\"5B\"");
    one("[limits]\nrefreshes = 0", 2, 13, "the nearest allowed value is 1");
    one("[tags]\nresponse_headers = [\"xkey\", \"Xkey\"]", 2, 29, "twice");
    one("[credential]\nheaders = [\"x api\"]", 2, 12, "not a valid header name");
    one("[credential]\ncookies = [\"a=b\"]", 2, 12, "not a valid cookie name");
    one("[credential]\nignore_cookies = [\"a b\"]", 2, 19, "not a valid cookie name");
    one("[credential]\nignore_cookies = [\"@abc\"]", 2, 19, "did you mean \"@ab\"?");
    one("[credential]\nignore_cookies = [\"!\"]", 2, 19, "not a valid cookie name");
    one(
        "[credential]\ncookies = [\"sid\"]\nignore_cookies = [\"sid\"]",
        3,
        19,
        "both in cookies and in ignore_cookies",
    );
    one("[credential]\nlogin_paths = [\"https://a/login\"]", 2, 16, "write only the path");
    one("[credential]\nlogin_paths = [\"/login?next=*\"]", 2, 16, "end it before the query");
    one("[credential]\nlogin_paths = [\"login\"]", 2, 16, "begins with `/` or `*`");
    one("[limits]\npinned = 100001", 2, 10, "0 to 100000");
    one("[redis]\nnamespace = \"a b\"\nurl = \"redis://h\"", 2, 13, "namespace");
    one("[redis]\ndeadline = \"100ms\"", 1, 1, "`url` is missing");
    one("[redis]\nurl = \"redis-sentinel://h\"", 2, 7, "sentinelServiceName");
    one("[redis]\nurl = \"redis-cluster://h/1\"", 2, 7, "database 0");
    one("[redis]\nurl = \"redis://h\"\nwait_replicas = 17", 3, 17, "0 to 16");
    one("[redis]\nurl = \"redis://a:b@h\"\npassword = \"c\"", 3, 12, "also in the URL");
    one("[redis]\nurl = \"redis://h\"\nsecret = \"c\"", 3, 10, "16 characters");
    one("[redis]\nurl = \"redis://h\"\nca_file = \"/nonexistent\"", 3, 11, "cannot be read");
    one(
        "[redis]\nurl = \"redis://h\"\njournal = \"/nonexistent/journal\"",
        3,
        11,
        "in a folder that does not exist",
    );
    one("[redis]\nurl = \"redis://h\"\njournal = \"/\"", 3, 11, "is a folder");
    one("[redis]\nurl = \"redis://h\"\njournal = \"\"", 3, 11, "this is empty");
    one("[redis]\nurl = \"redis://h\"\nlease = \"1ms\"", 3, 9, "100ms");
    one("[[listen]]\n", 1, 1, "but a table is needed");
    one("[redis]\nurl = \"redis://h\"\ncollapse = \"clutser\"", 3, 12, "did you mean \"cluster\"?");
    one("[sever]\n", 1, 2, "no key `sever`");
}

#[test]
fn targeted_headers() {
    let targeted = |list: &str, column: usize, text: &str| {
        one(&format!("[freshness]\ntargeted = {list}"), 2, column, text);
    };
    targeted("\"cdn-cache-control\"", 12, "put it in brackets");
    targeted("[\"cdn cache-control\"]", 13, "not a valid header name");
    targeted("[\"\"]", 13, "this name is empty");
    targeted("[\"a-cache-control\", \"A-Cache-Control\"]", 32, "listed twice");
    targeted("[\"connection\"]", 13, "belongs to the connection");
    targeted("[\"cdn-cache-control\", \"Cache-Control\"]", 34, "it always counts");
    targeted("[\"expires\"]", 13, "it always counts");
    targeted("[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\"]", 12, "at most 8");
    one("[freshness]\ntargetted = []", 2, 1, "did you mean `targeted`?");
}

#[test]
fn the_app() {
    for (url, hint) in [
        ("127.0.0.1:8000", "put http:// before it"),
        ("ftp://a", "only HTTP origins"),
        ("http://a/b", "a path or a query"),
        ("http://a?b", "a path or a query"),
        ("http://", "not a URL"),
        ("http://u:p@a", "user or password"),
    ] {
        let diagnostics = diagnostics(&format!("[upstream]\nurl = \"{url}\"\n"));
        assert_eq!(
            diagnostics
                .errors()
                .map(|diagnostic| (diagnostic.line, diagnostic.column))
                .collect::<Vec<_>>(),
            [(2, 7)],
            "{diagnostics}"
        );
        assert!(diagnostics.to_string().contains(hint), "{diagnostics}");
    }
    let circle = diagnostics(
        "[upstream]\nurl = \"http://127.0.0.1:8080\"\n[listen]\naddress = \"0.0.0.0:8080\"\n",
    );
    assert!(circle.to_string().contains("would loop") && circle.errors().count() == 1, "{circle}");
    assert!(diagnostics("").to_string().contains("[upstream] is missing"));
    assert!(diagnostics("[upstream]\n").to_string().contains("`url` is missing"));
    let config = parse("[upstream]\nurl = \"https://[::1]\"\n")
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let target = &config.upstream.target;
    let address = UpstreamAddress::Tcp { tls: true, host: "::1".into(), port: 443 };
    assert_eq!((&target.address, &*target.authority), (&address, "[::1]"));
}

#[test]
fn fields() {
    let field =
        |form: &str, column: usize, text: &str| one(&format!("x = {form}"), 1, column, text);
    field("{ }", 5, "no source");
    field("\"x-a\"", 5, "a table is needed");
    field("{ header = \"a\", cookie = \"b\" }", 5, "more than one source");
    field("{ header = \"connection\" }", 16, "belongs to the connection");
    field("{ header = \"authorization\" }", 16, "auth = \"token\"");
    field("{ header = \"host\" }", 16, "host = true");
    field("{ host = false }", 14, "host = true");
    field("{ auth = \"prefix\" }", 5, "`length` is missing");
    field("{ auth = \"prefix\", length = 7 }", 33, "8 to 512");
    field("{ auth = \"token\", length = 20 }", 32, "only for auth");
    field("{ auth = \"bearer\" }", 14, "is not a form of auth field");
    field("{ body = \"id\" }", 14, "JSON pointer");
    field("{ client = \"ip\" }", 16, "is not a property of the client");
    field("{ client = \"address\", header = \"a\" }", 5, "more than one source");
    field("{ host = true, prefix = \"/24\" }", 29, "only for client");
    field("{ client = \"address\", prefix = 24 }", 36, "put it in quotes");
    for prefix in ["24", "/33", "/0", "/+8", "/08", "/56", "/24,/129", "/24,", "/24,56"] {
        let form = format!("{{ client = \"address\", prefix = \"{prefix}\" }}");
        field(&form, 36, "not a prefix of addresses");
    }
    field("{ jwt = \"/sub\" }", 13, "there is no [jwt]");
    field("{ query = \"\" }", 15, "empty");
    one("\"a b\" = { host = true }", 1, 1, "not a valid name of a field");
}

#[test]
fn routes() {
    one("[[routes]]\nttl = \"5m\"", 1, 1, "`path` is missing");
    one("[[routes]]\npath = \"{id}\"\nkey = [\"id\"]", 2, 8, "does not start with");
    one("[[routes]]\npath = 5", 2, 8, "a string is needed");
    one("[routes]\npath = \"/a\"", 1, 1, "double brackets");
    one("[[routes]]\npath = \"/a/{tenant}\"", 2, 13, "the name of a field");
    one("[[routes]]\npath = \"/a/{b}\"\n[[routes]]\npath = \"/a/{c}\"", 4, 8, "at line 8");
    one("[[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/a\"", 4, 8, "line 8 has the same path");
    route("early_refresh = \"true\"", 1, 17, "remove the quotes");
    route("collapse = \"redis\"", 1, 12, "\"process\" or \"cluster\"");
    route("collapse = \"cluster\"", 1, 12, "add [redis]");
    route("mode = \"shadwo\"", 1, 8, "did you mean \"shadow\"?");
    route("key = \"tenant\"", 1, 7, "put it in brackets");
    route("key = [\"tennant\"]", 1, 9, "did you mean `tenant`?");
    route("key = [\"\"]", 1, 8, "this name is empty");
    route("key = [\"id\", \"id\"]", 1, 14, "listed twice");
    route("key = [\"form\"]", 1, 9, "does not read");
    route("tags = [\"x:{form}\"]", 1, 13, "does not read");
    route("tags = [\"x:{\"]", 1, 9, "without its");
    route("tags = [5]", 1, 9, "a string is needed");
    route("key = [\"caller\"]", 1, 8, "for tags alone");
    route("key = [\"user?\"]", 1, 9, "cannot be optional");
    route("key = [\"teant?\"]", 1, 9, "did you mean `tenant`?");
    route("tags = [\"x:{user?}\"]", 1, 13, "cannot be optional");
    route("scope = \"shared\"\ntags = [\"x:{caller}\"]", 2, 8, "scope = \"private\"");
    route("revalidate_after = \"0s\"", 1, 20, "1ms to 1d");
    route("query = \"some\"", 1, 9, "\"all\" or \"none\"");
    route("query = 5", 1, 9, "a list of parameters");
    route("query = [\"a\", \"a\"]", 1, 15, "listed twice");
    route("drop_headers = [\"te\"]", 1, 17, "belongs to the connection");
    route(
        "drop_headers = [\"x-a\"]\npass_headers = [\"X-A\"]",
        1,
        17,
        "drop_headers and in pass_headers",
    );
    route(
        "drop_headers = [\"x-tenant-id\"]\nkey = [\"tenant\"]",
        1,
        17,
        "withheld from the origin, but",
    );
    route("scope = \"public\"\nkey = [\"user\"]", 1, 9, "withholds credentials");
    route("scope = \"public\"\npass_headers = [\"cookie\"]", 2, 17, "cannot be passed");
    route("scope = \"shared\"\ndrop_headers = [\"authorization\"]", 2, 17, "authorizes callers");
    route("admit = \"route \"", 1, 9, "did you mean \"route\"?");
    route("vary_cookie = \"no\"", 1, 15, "\"respect\" or \"ignore\"");
    route("languages = []", 1, 13, "the list has no language");
    route("languages = [\"pt_BR\"]", 1, 14, "write `-` between its parts");
    route("languages = [\"en;q=0.5\"]", 1, 14, "without a weight");
    route("languages = [\"de\", \"DE\"]", 1, 20, "listed twice");
    route("strip_set_cookie = \"true\"", 1, 20, "remove the quotes");
    route("strip_set_cookie = \"_ga\"", 1, 20, "in brackets");
    route("strip_set_cookie = [\"a;b\"]", 1, 21, "not a valid cookie name");
    route("audit = true", 1, 9, "a number from 0 to 1");
    route("audit = 1.5", 1, 9, "must be from 0 to 1");
    route("Path = \"/b\"", 1, 1, "did you mean `path`?");
    one("[[routes]]\npth = \"/a\"", 2, 1, "did you mean `path`?");
}

/// The only route of a file that is otherwise right.
fn only_route(before: &str, keys: &str) -> crate::policy::route::RouteSpec {
    let text = with(&format!("{before}\n[[routes]]\npath = \"/a\"\n{keys}\n"));
    let config = parse(&text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    config.routes.iter().next().map(|route| route.spec.clone()).expect("a route")
}

#[test]
fn a_route_says_when_the_app_is_asked() {
    let plain = only_route("", "ttl = \"5m\"");
    assert_eq!(
        (plain.stale_while_revalidate, plain.stale_if_error, plain.jitter),
        (None, None, Duration::ZERO)
    );
    assert_eq!((plain.early_refresh, plain.collapse), (true, Collapse::Process));
    let keys = "ttl = \"5m\"\nstale_while_revalidate = \"0s\"\nstale_if_error = \"365d\"\njitter \
                = \"299999ms\"\nearly_refresh = false";
    let stated = only_route("", keys);
    assert_eq!(
        stated.stale_while_revalidate,
        Some(Duration::ZERO),
        "none is not the same as not said"
    );
    assert_eq!(
        (stated.stale_if_error, stated.jitter),
        (Some(Duration::from_hours(8760)), Duration::from_millis(299_999))
    );
    assert!(!stated.early_refresh);
}

#[test]
fn collapsing_is_what_redis_says_unless_the_route_says_otherwise() {
    let redis = "[redis]\nurl = \"redis://h\"";
    let cluster = "[redis]\nurl = \"redis://h\"\ncollapse = \"cluster\"";
    for (before, keys, expected) in [
        ("", "collapse = \"process\"", Collapse::Process),
        (redis, "", Collapse::Process),
        (redis, "collapse = \"cluster\"", Collapse::Cluster),
        (cluster, "", Collapse::Cluster),
        (cluster, "collapse = \"process\"", Collapse::Process),
    ] {
        assert_eq!(only_route(before, keys).collapse, expected, "{before} {keys}");
    }
}

#[test]
fn a_redis_that_is_wrong_is_the_only_problem_of_routes_that_collapse_through_it() {
    let route = "[[routes]]\npath = \"/a\"\ncollapse = \"cluster\"";
    one(&format!("[redis]\nurl = 5\n{route}"), 2, 7, "a string is needed");
    one(
        &format!("[redis]\nurl = \"redis://h\"\ncollapse = 1\n{route}"),
        3,
        12,
        "a string is needed",
    );
    one(&format!("[redis\nurl = \"redis://h\"\n{route}"), 1, 1, "do not match");
    one(&format!("[re dis]\nurl = \"redis://h\"\n{route}"), 1, 4, "syntax");
    one(&format!("[reddis]\nurl = \"redis://h\"\n{route}"), 1, 2, "did you mean `redis`?");
    one(&format!("[[redis]]\nurl = \"redis://h\"\n{route}"), 1, 1, "a table is needed");
}

#[test]
fn the_new_limits_and_headers_arrive() {
    let silent = parse(&with("")).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let limits = &silent.limits;
    assert_eq!((limits.variants, limits.stale, limits.ranges), (64, Duration::from_mins(10), 16));
    assert_eq!((limits.range_fill, limits.refreshes), (8 << 20, 64));
    assert_eq!((limits.stall, limits.range_factor), (Duration::from_secs(2), 16));
    assert_eq!((silent.upstream.max_interim_bytes, silent.log.repeats), (64 << 10, 100));
    assert_eq!(silent.server.stall, limits.stall);
    assert_eq!(*silent.response_rules.targeted, [HeaderName::from_static("cdn-cache-control")]);
    let lines = "[limits]\nvariants = 1\nstale = \"0s\"\nranges = 256\nrange_fill = \
                 \"0\"\nrefreshes = 1\nstall = \"1s\"\nrange_factor = 1\n[log]\nrepeats = \
                 1\n[freshness]\ntargeted = [\"X-Cache-Control\", \
                 \"cdn-cache-control\"]";
    let stated = parse(&with(lines)).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let limits = &stated.limits;
    assert_eq!((limits.variants, limits.stale, limits.ranges), (1, Duration::ZERO, 256));
    assert_eq!((limits.range_fill, limits.refreshes), (0, 1));
    assert_eq!((limits.stall, limits.range_factor), (Duration::from_secs(1), 1));
    assert_eq!((stated.server.stall, stated.log.repeats), (limits.stall, 1));
    assert_eq!(
        *stated.response_rules.targeted,
        ["x-cache-control", "cdn-cache-control"].map(HeaderName::from_static),
        "in the order of the file"
    );
    let off = parse(&with("[freshness]\ntargeted = []"))
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert!(off.response_rules.targeted.is_empty());
}

#[test]
fn two_unknown_fields_in_one_tag_are_two_problems() {
    let diagnostics = diagnostics(&with("[[routes]]\npath = \"/a\"\ntags = [\"{one}:{two}\"]"));
    assert_eq!(
        diagnostics.errors().map(|diagnostic| diagnostic.column).collect::<Vec<_>>(),
        [11, 17],
        "{diagnostics}"
    );
}

#[test]
fn routes_that_differ_by_case_alone() {
    let two = |one: &str, other: &str| {
        format!(
            "[[routes]]\npath = \"/a\"\nttl = \"5m\"\n{one}\n[[routes]]\npath = \"/A\"\nttl = \
             \"5m\"\n{other}\n"
        )
    };
    let ignore = "case = \"ignore\"";
    assert!(parse(&with(&two("", ""))).is_ok());
    assert!(parse(&with(&two(ignore, ""))).is_ok());
    one(&two(ignore, ignore), 6, 8, "neither is more specific");
    one("[[routes]]\npath = \"/a\"\ncase = \"lower\"", 3, 8, "\"exact\" or \"ignore\"");
}

#[test]
fn purges() {
    let purge = |keys: &str, line: usize, column: usize, text: &str| {
        one(&format!("[[purges]]\npath = \"/a/{{id}}\"\n{keys}\n"), line + 2, column, text);
    };
    one("[[purges]]\npath = \"/a\"", 1, 1, "`tags` is missing");
    purge("tags = []", 1, 8, "purges nothing");
    purge("tags = [\"a\"]\nmethods = [\"HEAD\"]", 2, 12, "goes with GET");
    purge("tags = [\"a\"]\nmethods = [\"OPTIONS\"]", 2, 12, "is a safe method");
    purge("tags = [\"a\"]\nmatch = {}", 2, 9, "has no conditions");
    purge("tags = [\"a\"]\nmatch = { query = {} }", 2, 9, "has no conditions");
    purge("tags = [\"a\"]\nmatch = \"trash\"", 2, 9, "a table is needed");
    purge("tags = [\"a\"]\nmatch = { query.action = 1 }", 2, 26, "a string is needed");
    purge("tags = [\"a\"]\nmatch = { query.a.b = \"1\" }", 2, 17, "put the name in quotes: \"a");
    purge("tags = [\"a\"]\nmatch = { action = \"trash\" }", 2, 11, "match has no key `action`");
    purge("tags = [\"a\"]\nmatch = { header.\"a b\" = \"1\" }", 2, 18, "not the name of a header");
    purge("tags = [\"a\"]\nmatch = { host = \"http://a\" }", 2, 18, "is not a host");
    purge("tags = [\"a\"]\nmatch = { host = \"x:99999\" }", 2, 18, "is not a host");
    purge("tags = [\"a\"]\nexcept = [\"b\"]", 2, 11, "start with `/`");
    purge("tags = [\"a\"]\npurge_on = \"3xx\"", 2, 12, "is not a choice of answers");
    purge("tags = [\"a\"]\nmethods = [\"post\"]", 2, 12, "\"POST\"");
    purge("tags = [\"a\"]\nmethods = [\"POST\", \"POST\"]", 2, 20, "listed twice");
    purge("tags = [\"a\"]\nmethods = []", 2, 11, "never applies");
    purge("tags = [\"a\"]\nrepurge_after = [\"0s\"]", 2, 18, "1ms to 1d");
    purge("tags = [\"a\"]\nrepurge_after = [\"1s\", \"1s\"]", 2, 24, "twice");
    purge(
        "tags = [\"a\"]\nrepurge_after = \
         [\"1s\",\"2s\",\"3s\",\"4s\",\"5s\",\"6s\",\"7s\",\"8s\",\"9s\"]",
        2,
        17,
        "at most 8",
    );
    purge("tags = [\"{nobody}\"]", 1, 11, "is not a field");
    purge("tags = [\"a\"]\nguard = \"none\"", 2, 9, "\"mark\" or \"bypass\"");
    assert!(
        parse(&with(
            "[[purges]]\npath = \"/a/{id}\"\ntags = \
                         [\"x:{form}:{id}:{tenant}\"]\nrepurge_after = [\"1s\", \"5s\"]"
        ))
        .is_ok()
    );
}

#[test]
fn a_field_of_a_capture_needs_that_capture() {
    one(
        "x = { path = \"id\" }\n[[routes]]\npath = \"/a/{name}\"\nkey = [\"x\"]",
        4,
        9,
        "does not have",
    );
}

#[test]
fn warnings_leave_the_file_usable() {
    warning("p = { auth = \"prefix\", length = 20 }", 1, "write p = { auth = \"token\" }");
    warning("x = { host = true }", 1, "is not used");
    warning("[[routes]]\npath = \"/a\"\nttl = \"5m\"", 2, "no purge rule covers");
    warning("[[routes]]\npath = \"/a\"\norigin = \"ignore\"", 3, "no effect without");
    warning("[[routes]]\npath = \"/a\"\nadmit_for = \"5s\"", 3, "outside scope");
    warning("[limits]\nobject = \"1GiB\"", 2, "large for a memory tier");
    warning(
        "[limits]\nobject = \"1MiB\"\nrange_fill = \"2MiB\"",
        3,
        "no effect above `object` (1MiB)",
    );
    warning(
        "[[routes]]\npath = \"/a\"\nmode = \"off\"\nstale_while_revalidate = \"30s\"",
        4,
        "no effect with mode \"off\"",
    );
    warning(
        "[[routes]]\npath = \"/a\"\nstale_if_error = \"30s\"\nmode = \"off\"",
        3,
        "no effect with mode \"off\"",
    );
    let config = parse("[upstream]\nurl = \"http://a\"\n")
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(
        config.warnings.iter().map(ToString::to_string).collect::<String>(),
        "proxy.toml: warning: there are no routes, so nothing is cached\n  hint: add [[routes]] \
         with path = \"/api/…\" and ttl = \"5m\"\n"
    );
    let covered = parse(&with(
        "[[routes]]\npath = \"/a\"\nttl = \"5m\"\n[[purges]]\npath = \"/{*rest}\"\ntags = [\"x\"]",
    ));
    assert!(
        covered
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
            .warnings
            .iter()
            .all(|warning| !warning.message.contains("no purge rule"))
    );
}

#[test]
fn the_journal_is_a_file_beside_the_configuration_and_need_not_be_there_yet() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("proxy.toml");
    let journal = |key: &str| {
        std::fs::write(&path, with(&format!("[redis]\nurl = \"redis://h\"\n{key}")))
            .expect("written");
        let config = crate::config::Config::load(&path)
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        config.redis.expect("redis").journal
    };
    assert_eq!(journal(""), None);
    assert_eq!(journal("journal = \"purges\""), Some(folder.path().join("purges")));
    assert!(!folder.path().join("purges").exists(), "to read the configuration makes no file");
}
