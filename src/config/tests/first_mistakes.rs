//! What people write at first, as other tools want it: each is refused or noted at its place, with
//! the right form.

use super::{diagnostics, parse};
use crate::config::{Config, Severity};

const HEAD: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n";

/// Expects one error, at this text of the file, with these words.
fn refused(lines: &str, found: &str, words: &[&str]) {
    let diagnostics = diagnostics(&format!("{HEAD}{lines}"));
    let errors: Vec<_> = diagnostics.errors().collect();
    assert_eq!(errors.len(), 1, "{lines}\n{diagnostics}");
    assert_eq!(errors[0].found, found, "{lines}\n{diagnostics}");
    let drawn = errors[0].to_string();
    for word in words {
        assert!(drawn.contains(word), "{word}: {drawn}");
    }
}

#[test]
fn patterns_of_other_tools_are_refused_wherever_patterns_stand() {
    for pattern in ["/api/*", "/api/<id>", "/api/:id", "/api/[id]"] {
        let quoted = format!("\"{pattern}\"");
        let words = ["a pattern of other tools", "write \"/api/{"];
        refused(&format!("[[routes]]\npath = {quoted}\n"), &quoted, &words);
        let purge = |except: &str, path: &str| {
            format!("[[purges]]\npath = \"{path}\"\n{except}tags = [\"a\"]\n")
        };
        refused(&purge("", pattern), &quoted, &words);
        refused(&purge(&format!("except = [{quoted}]\n"), "/api/{*rest}"), &quoted, &words);
    }
    for path in ["/items:batch", "/items/{id}:batch", "/items/{id}.json", "/{name}-{id}"] {
        parse(&format!("{HEAD}[[routes]]\npath = \"{path}\"\n")).expect(path);
    }
    for (path, form) in [
        ("/users/:id/login", "/users/*/login"),
        ("/{tenant}/login", "/*/login"),
        ("/<tenant>/login", "/*/login"),
        ("*/[tenant]/login", "*/*/login"),
        ("^/login", "without `^`"),
    ] {
        let quoted = format!("\"{path}\"");
        refused(&format!("[credential]\nlogin_paths = [{quoted}]\n"), &quoted, &[form]);
    }
}

#[test]
fn routes_that_may_match_the_same_segment_tie() {
    let routes = |one: &str, two: &str| {
        format!("[[routes]]\npath = \"{one}\"\n[[routes]]\npath = \"{two}\"\n")
    };
    let words = ["\"/{a}-{b}\" at line 4", "neither is more specific"];
    refused(&routes("/{a}-{b}", "/{a}.{b}"), "\"/{a}.{b}\"", &words);
    let ignoring = format!("{}case = \"ignore\"\n", routes("/{a}-{b}", "/{a}.{b}"));
    refused(&ignoring, "\"/{a}.{b}\"", &words);
    parse(&format!("{HEAD}{}", routes("/{a}-{b}", "/{id}.json"))).expect("more text wins");
}

#[test]
fn names_are_not_patterns() {
    refused(
        "[[routes]]\npath = \"/a\"\npass_headers = [\"cf-*\"]\n",
        "\"cf-*\"",
        &["named one by one", "drop_headers, which may have patterns"],
    );
    for pattern in ["*", "x-*", "*-x-*"] {
        let quoted = format!("\"{pattern}\"");
        refused(
            &format!("[[routes]]\npath = \"/a\"\ndrop_headers = [{quoted}]\n"),
            &quoted,
            &["not a pattern of header names", "unknown_headers = \"drop\""],
        );
    }
    for section in [
        "[credential]\nheaders = [\"x-*\"]\n",
        "[tags]\nresponse_headers = [\"x-*\"]\n",
        "[freshness]\ntargeted = [\"x-*\"]\n",
        "[fields]\na = { header = \"x-*\" }\n",
    ] {
        refused(section, "\"x-*\"", &["headers are named one by one"]);
    }
    for (name, hint) in
        [("*", "query = \"all\""), ("utm_*", "write each name"), ("?page", "write only the name")]
    {
        let quoted = format!("\"{name}\"");
        refused(&format!("[[routes]]\npath = \"/a\"\nquery = [{quoted}]\n"), &quoted, &[hint]);
    }
    for method in ["*", "ANY", "all"] {
        let quoted = format!("\"{method}\"");
        let rule = format!("[[purges]]\npath = \"/a\"\nmethods = [{quoted}]\ntags = [\"a\"]\n");
        refused(&rule, &quoted, &["remove `methods`"]);
    }
}

#[test]
fn redis_is_left_out_where_its_variable_is_empty() {
    let text = format!(
        "{HEAD}[redis]\nurl = \"${{REDIS_URL:-}}\"\nsecret = \"0123456789abcdef\"\ncollapse = \
         \"cluster\"\n[[routes]]\npath = \"/a\"\ncollapse = \"cluster\"\n"
    );
    for unset in [None, Some(String::new())] {
        let config = Config::parse(&text, "proxy.toml", &|name| {
            unset.clone().filter(|_| name == "REDIS_URL")
        });
        let config = config.unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        assert!(config.redis.is_none());
        let [note] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        assert_eq!((note.severity, note.line), (Severity::Note, 4));
        assert!(note.message.contains("[redis] is left out"), "{note}");
    }
    let set = Config::parse(&text, "proxy.toml", &|name| {
        (name == "REDIS_URL").then(|| "redis://127.0.0.1/0".to_owned())
    });
    let set = set.unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert!(set.redis.is_some() && set.warnings.is_empty(), "{:?}", set.warnings);
    // Its other keys are checked all the same, and so is a cache without a tier.
    let unknown = text.replace("collapse = \"cluster\"\n[[", "colapse = \"cluster\"\n[[");
    assert!(diagnostics(&unknown).to_string().contains("did you mean `collapse`?"));
    let nowhere = format!("{text}[memory]\nsize = \"0\"\n");
    assert!(diagnostics(&nowhere).to_string().contains("nothing can be stored"));
    refused("[redis]\nurl = \"\"\n", "\"\"", &["${REDIS_URL:-}"]);
}

#[test]
fn a_missing_file_comes_with_one_that_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("proxy.toml");
    let said = Config::load(&path).expect_err("there is none").to_string();
    let lines: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(said.contains("--config FILE") && said.contains("sidecache check"), "{said}");
    std::fs::write(&path, lines.join("\n")).expect("written");
    let config = Config::load(&path).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.routes.len(), 1);
}
