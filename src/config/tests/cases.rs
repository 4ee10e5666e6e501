//! One file per kind of problem: where it is pointed at, and a word of what is said.

use super::{parse, problems};

/// Puts lines into a file that is otherwise right: `{}` stands for them at its top, after `[upstream]`.
fn with(lines: &str) -> String {
    format!(
        "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[fields]\ntenant = {{ header = \"x-tenant-id\" }}\nuser = {{ auth = \"token\" }}\nform = {{ body = \"/id\" }}\n{lines}"
    )
}

const LINE: usize = 7;

/// Expects exactly one error, in this line of the given lines (from 1) and column, with this text in its drawing.
fn one(lines: &str, line: usize, column: usize, text: &str) {
    let problems = problems(&with(lines));
    let errors: Vec<_> = problems.errors().collect();
    assert_eq!(errors.len(), 1, "{lines}\n{problems}");
    assert_eq!((errors[0].line + 1, errors[0].column), (line + LINE, column), "{lines}\n{problems}");
    assert!(problems.to_string().contains(text), "{text}: {problems}");
}

fn warning(lines: &str, line: usize, text: &str) {
    let config = parse(&with(lines)).unwrap_or_else(|problems| panic!("{problems}"));
    let found = config.warnings.iter().any(|warning| warning.line + 1 == line + LINE && warning.to_string().contains(text));
    assert!(found, "{text}: {:?}", config.warnings);
}

fn route(keys: &str, line: usize, column: usize, text: &str) {
    one(&format!("[[routes]]\npath = \"/a/{{id}}\"\n{keys}\n"), line + 2, column, text);
}

#[test]
fn sections() {
    one("[listen]\naddress = \":8080\"", 2, 11, "\"0.0.0.0:8080\"");
    one("[listen]\naddress = \"http://127.0.0.1:80\"", 2, 11, "leave the scheme out");
    one("[listen]\ntrusted_proxies = [\"10.0.0.0/8\", \"proxy\"]", 2, 34, "is not a network");
    one("[listen]\nidle_timeout = \"0s\"", 2, 16, "1ms to 1d");
    one("[listen]\nmax_streams = 0", 2, 15, "1 to 10000");
    one("[listen]\nmax_streams = -1", 2, 15, "negative");
    one("[listen]\nmax_streams = \"5\"", 2, 15, "leave the quotes out");
    one("[listen]\naddress = 8080", 2, 11, "put it in quotes");
    one("[listen]\ndrain = 5", 2, 9, "\"5s\"");
    one("[listen]\nadress = \"127.0.0.1:1\"", 2, 1, "did you mean `address`?");
    one("[listen]\naddress = \"127.0.0.1:9090\"", 2, 11, "the same address");
    one("[admin]\naddress = \"0.0.0.0:9090\"", 2, 11, "no token");
    one("[admin]\ntoken = \"short\"", 2, 9, "16 characters");
    one("[admin]\ntoken = \"0123456789abcdef\"\ntoken_file = \"/dev/null\"", 3, 14, "remove one of the two");
    one("[memory]\nsize = \"0\"", 2, 8, "nothing to cache in");
    one("[memory]\nsize = \"1kB\"", 2, 8, "1MiB to 64TiB");
    one("[memory]\nsize = 256", 2, 8, "\"256B\"");
    one("[log]\nlevel = \"debgu\"", 2, 9, "not a level");
    one("[log]\nformat = \"jsn\"", 2, 10, "did you mean \"json\"?");
    one("[log]\naccess = \"true\"", 2, 10, "leave the quotes out");
    one("[limits]\ntags = 0", 2, 8, "1 to 4096");
    one("[limits]\nobject = \"1.5MiB\"", 2, 10, "smaller unit");
    one("[tags]\nresponse_headers = [\"xkey\", \"Xkey\"]", 2, 29, "twice");
    one("[credential]\nheaders = [\"x api\"]", 2, 12, "not the name of a header");
    one("[credential]\ncookies = [\"a=b\"]", 2, 12, "not the name of a cookie");
    one("[redis]\nnamespace = \"a b\"\nurl = \"redis://h\"", 2, 13, "namespace");
    one("[redis]\ndeadline = \"100ms\"", 1, 1, "`url` is missing");
    one("[redis]\nurl = \"redis-sentinel://h\"", 2, 7, "primary");
    one("[redis]\nurl = \"redis://a:b@h\"\npassword = \"c\"", 3, 12, "in the url, too");
    one("[redis]\nurl = \"redis://h\"\nsecret = \"c\"", 3, 10, "16 characters");
    one("[redis]\nurl = \"redis://h\"\nca_file = \"/nonexistent\"", 3, 11, "cannot be read");
    one("[redis]\nurl = \"redis://h\"\nlease = \"2s\"", 3, 1, "not supported by this version");
    one("[[listen]]\n", 1, 1, "where a table is needed");
    one("[sever]\n", 1, 2, "no key `sever`");
}

#[test]
fn the_app() {
    for (url, hint) in [
        ("127.0.0.1:8000", "put http:// before it"),
        ("ftp://a", "only HTTP apps"),
        ("http://a/b", "a path or a query"),
        ("http://a?b", "a path or a query"),
        ("http://", "not a url"),
        ("http://u:p@a", "user or password"),
    ] {
        let problems = problems(&format!("[upstream]\nurl = \"{url}\"\n"));
        assert_eq!(problems.errors().map(|problem| (problem.line, problem.column)).collect::<Vec<_>>(), [(2, 7)], "{problems}");
        assert!(problems.to_string().contains(hint), "{problems}");
    }
    let circle = problems("[upstream]\nurl = \"http://127.0.0.1:8080\"\n[listen]\naddress = \"0.0.0.0:8080\"\n");
    assert!(circle.to_string().contains("in a circle") && circle.errors().count() == 1, "{circle}");
    assert!(problems("").to_string().contains("[upstream] is missing"));
    assert!(problems("[upstream]\n").to_string().contains("`url` is missing"));
    let config = parse("[upstream]\nurl = \"https://[::1]\"\n").unwrap_or_else(|problems| panic!("{problems}"));
    let target = &config.upstream.target;
    assert_eq!((target.tls, &*target.host, target.port, &*target.authority), (true, "::1", 443, "[::1]"));
}

#[test]
fn fields() {
    let field = |form: &str, column: usize, text: &str| one(&format!("x = {form}"), 1, column, text);
    field("{ }", 5, "no source");
    field("\"x-a\"", 5, "a table is needed");
    field("{ header = \"a\", cookie = \"b\" }", 5, "more than one source");
    field("{ header = \"connection\" }", 16, "belongs to the connection");
    field("{ header = \"authorization\" }", 16, "auth = \"token\"");
    field("{ header = \"host\" }", 16, "host = true");
    field("{ host = false }", 14, "host = true");
    field("{ auth = \"prefix\" }", 5, "`length` is missing");
    field("{ auth = \"prefix\", length = 7 }", 33, "8 to 512");
    field("{ auth = \"token\", length = 20 }", 32, "belongs to auth");
    field("{ auth = \"bearer\" }", 14, "is not a form of auth field");
    field("{ body = \"id\" }", 14, "JSON pointer");
    field("{ jwt = \"sub\" }", 7, "not supported by this version");
    field("{ query = \"\" }", 15, "empty");
    one("\"a b\" = { host = true }", 1, 1, "cannot be the name");
}

#[test]
fn routes() {
    one("[[routes]]\nttl = \"5m\"", 1, 1, "`path` is missing");
    one("[[routes]]\npath = \"{id}\"\nkey = [\"id\"]", 2, 8, "does not start with");
    one("[[routes]]\npath = 5", 2, 8, "a string is needed");
    one("[routes]\npath = \"/a\"", 1, 1, "double brackets");
    one("[[routes]]\npath = \"/a/{tenant}\"", 2, 13, "the name of a field");
    one("[[routes]]\npath = \"/a/{b}\"\n[[routes]]\npath = \"/a/{c}\"", 4, 8, "in line 8");
    one("[[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/a\"", 4, 8, "line 8 has the same path");
    route("ttl = \"0s\"", 1, 7, "1ms to 365d");
    route("ttl = \"366d\"", 1, 7, "1ms to 365d");
    route("mode = \"shadow\"", 1, 8, "\"on\" or \"off\"");
    route("key = \"tenant\"", 1, 7, "put it in brackets");
    route("key = [\"tennant\"]", 1, 9, "did you mean `tenant`?");
    route("key = [\"\"]", 1, 8, "empty name");
    route("key = [\"id\", \"id\"]", 1, 14, "listed twice");
    route("key = [\"form\"]", 1, 9, "body of writes");
    route("tags = [\"x:{form}\"]", 1, 13, "body of writes");
    route("tags = [\"x:{\"]", 1, 9, "without its");
    route("tags = [5]", 1, 9, "a string is needed");
    route("query = \"some\"", 1, 9, "\"all\" or \"none\"");
    route("query = 5", 1, 9, "a list of parameters");
    route("query = [\"a\", \"a\"]", 1, 15, "listed twice");
    route("drop_headers = [\"te\"]", 1, 17, "belongs to the connection");
    route("drop_headers = [\"x-a\"]\npass_headers = [\"X-A\"]", 1, 17, "drop_headers and in pass_headers");
    route("drop_headers = [\"x-tenant-id\"]\nkey = [\"tenant\"]", 1, 17, "withheld from the app, but");
    route("scope = \"public\"\nkey = [\"user\"]", 1, 9, "withholds credentials");
    route("scope = \"public\"\npass_headers = [\"cookie\"]", 2, 17, "cannot be let through");
    route("scope = \"shared\"\ndrop_headers = [\"authorization\"]", 2, 17, "admits the caller");
    route("audit = true", 1, 1, "not supported by this version");
    route("Path = \"/b\"", 1, 1, "did you mean `path`?");
    one("[[routes]]\npth = \"/a\"", 2, 1, "did you mean `path`?");
}

#[test]
fn two_unknown_fields_in_one_tag_are_two_problems() {
    let problems = problems(&with("[[routes]]\npath = \"/a\"\ntags = [\"{one}:{two}\"]"));
    assert_eq!(problems.errors().map(|problem| problem.column).collect::<Vec<_>>(), [11, 17], "{problems}");
}

#[test]
fn purges() {
    let purge = |keys: &str, line: usize, column: usize, text: &str| {
        one(&format!("[[purges]]\npath = \"/a/{{id}}\"\n{keys}\n"), line + 2, column, text);
    };
    one("[[purges]]\npath = \"/a\"", 1, 1, "`tags` is missing");
    purge("tags = []", 1, 8, "purges nothing");
    purge("tags = [\"a\"]\nmethods = [\"GET\"]", 2, 12, "changes nothing");
    purge("tags = [\"a\"]\nmethods = [\"post\"]", 2, 12, "\"POST\"");
    purge("tags = [\"a\"]\nmethods = [\"POST\", \"POST\"]", 2, 20, "listed twice");
    purge("tags = [\"a\"]\nmethods = []", 2, 11, "never applies");
    purge("tags = [\"a\"]\nrepurge_after = [\"0s\"]", 2, 18, "1ms to 1d");
    purge("tags = [\"a\"]\nrepurge_after = [\"1s\", \"1s\"]", 2, 24, "twice");
    purge("tags = [\"a\"]\nrepurge_after = [\"1s\",\"2s\",\"3s\",\"4s\",\"5s\",\"6s\",\"7s\",\"8s\",\"9s\"]", 2, 17, "at most 8");
    purge("tags = [\"{nobody}\"]", 1, 11, "is not a field");
    purge("tags = [\"a\"]\nguard = \"none\"", 2, 9, "\"mark\" or \"bypass\"");
    assert!(parse(&with("[[purges]]\npath = \"/a/{id}\"\ntags = [\"x:{form}:{id}:{tenant}\"]\nrepurge_after = [\"1s\", \"5s\"]")).is_ok());
}

#[test]
fn a_field_of_a_capture_needs_that_capture() {
    one("x = { path = \"id\" }\n[[routes]]\npath = \"/a/{name}\"\nkey = [\"x\"]", 4, 9, "does not have");
}

#[test]
fn warnings_leave_the_file_usable() {
    warning("p = { auth = \"prefix\", length = 20 }", 1, "in private scope the whole credential is in the key anyway");
    warning("x = { host = true }", 1, "is not used");
    warning("[[routes]]\npath = \"/a\"\nttl = \"5m\"", 2, "no purge rule covers");
    warning("[[routes]]\npath = \"/a\"\norigin = \"ignore\"", 3, "no effect without");
    warning("[[routes]]\npath = \"/a\"\nadmit_for = \"5s\"", 3, "outside scope");
    warning("[limits]\nobject = \"1GiB\"", 2, "large for a memory tier");
    let config = parse("[upstream]\nurl = \"http://a\"\n").unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(
        config.warnings.iter().map(ToString::to_string).collect::<String>(),
        "proxy.toml: warning: there are no routes: everything passes through and nothing is cached\n  hint: add [[routes]] with path = \"/api/…\" and ttl = \"5m\"\n"
    );
    let covered = parse(&with("[[routes]]\npath = \"/a\"\nttl = \"5m\"\n[[purges]]\npath = \"/{*rest}\"\ntags = [\"x\"]"));
    assert!(
        covered.unwrap_or_else(|problems| panic!("{problems}")).warnings.iter().all(|warning| !warning.message.contains("no purge rule"))
    );
}
