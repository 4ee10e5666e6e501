//! What a file may cost, and what its diagnostics must not show.

use std::time::Duration;

use super::super::{Config, Severity};
use super::{diagnostics, parse};

#[test]
fn files_without_an_end_are_errors_and_never_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero")).expect("a link");
    std::fs::write(folder.path().join("large"), vec![b'a'; (64 << 10) + 1]).expect("written");
    let name = folder.path().join("proxy.toml").display().to_string();
    for (file, why) in [
        ("fifo", "not a regular file"),
        ("zero", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("large", "larger than 64KiB"),
    ] {
        for (section, line) in
            [("[admin]\ntoken_file", 4), ("[redis]\nurl = \"redis://h\"\nca_file", 5)]
        {
            if (file, line) == ("large", 5) {
                continue;
            }
            let text = format!("[upstream]\nurl = \"http://a\"\n{section} = \"{file}\"\n");
            let found = Config::parse(&text, &name, &|_| None).expect_err("an endless file");
            let found: Vec<_> = found.errors().collect();
            let all = found.iter().map(ToString::to_string).collect::<String>();
            assert_eq!((found.len(), found[0].line), (1, line), "{all}");
            assert!(all.contains(why) && all.contains("allowed: a regular file"), "{all}");
        }
    }
    let found = Config::load(&fifo).expect_err("a FIFO").to_string();
    assert!(found.contains("not a regular file") && found.contains("hint:"), "{found}");
}

#[test]
fn a_text_has_a_limit() {
    let mut text = "[upstream]\nurl = \"http://a\"\n#".to_owned();
    text.extend(std::iter::repeat_n('a', (256 << 10) - text.len()));
    parse(&text).expect("a text of exactly the limit");
    text.push('a');
    assert!(diagnostics(&text).to_string().contains("larger than 256KiB"));
}

/// How long this thread has been computing, whatever else the machine does.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it only grows")
}

#[test]
fn many_problems_take_little_memory() {
    const BYTES: usize = 250_000;
    let list = |open: &str, item: &str, close: &str| {
        format!("{open}{}{close}", item.repeat((BYTES - open.len() - close.len()) / item.len()))
    };
    let keys: Vec<String> = (0..25_000).map(|number| format!("b{number}=1")).collect();
    for text in [
        format!("[upstream]\nurl = \"http://a\"\n[fields]\nx = {{{}}}\n", keys.join(",")),
        list("", "x\n", ""),
        list("", "[[routes]]\n", ""),
        list("!\n", "[[routes]]\n", ""),
        list("routes=[", "{},", "]"),
        list("", "a://", ""),
        list("", "token ", ""),
        list("", "[", ""),
        list("a", ".a", " = 1"),
        list("", "\"", ""),
        list("", "pass=\"\"\"", ""),
        list("a = \"", "b", "\""),
        list("[listen]\ntrusted_proxies = [", "\"a\",", "]"),
    ] {
        let began = worked();
        let found = diagnostics(&text);
        let took = worked().saturating_sub(began);
        let start: String = text.chars().take(30).collect();
        assert!(took < Duration::from_secs(10), "{start}: {took:?}");
        assert!(found.iter().count() <= 101, "{start}: {}", found.iter().count());
        assert!(found.iter().all(|problem| problem.message.chars().count() <= 201), "{start}");
        assert!(found.to_string().len() < 200_000, "{start}: {}", found.to_string().len());
    }
}

#[test]
fn errors_come_before_warnings_and_the_rest_is_counted() {
    let unknown = "[[routes]]\npath = \"/a\"\nx = 1\n";
    let text = format!("[upstream]\nurl = \"http://a\"\n{}", unknown.repeat(130));
    let found = diagnostics(&text);
    let last = found.iter().last().expect("a note");
    assert_eq!((found.errors().count(), last.severity), (100, Severity::Note), "{found}");
    assert!(last.message.starts_with("and ") && last.message.ends_with(" more"), "{found}");
    let lines = "x\n".repeat(130);
    let syntax = diagnostics(&format!("[upstream]\nurl = \"http://a\"\n{lines}"));
    assert_eq!(syntax.iter().last().expect("a note").message, "and 30 more", "{syntax}");
}

#[test]
fn of_a_long_line_the_part_around_the_problem_is_shown() {
    let text = format!(
        "[upstream]\nurl = \"http://a\"\n[limits]\ntags = {}\"3x\" # {}\n",
        " ".repeat(500),
        "c".repeat(500)
    );
    let found = diagnostics(&text).to_string();
    let lines: Vec<&str> = found.lines().collect();
    assert!(lines[2].contains('\u{2026}') && lines[2].chars().count() < 220, "{found}");
    let caret = lines[3].chars().position(|c| c == '^').expect("a caret");
    assert!(matches!(lines[2].chars().nth(caret), Some('"')), "{found}");
}

#[test]
fn a_journal_is_no_link() {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink("other", folder.path().join("journal")).expect("a link");
    let name = folder.path().join("proxy.toml").display().to_string();
    let text =
        "[upstream]\nurl = \"http://a\"\n[redis]\nurl = \"redis://h\"\njournal = \"journal\"\n";
    let found = Config::parse(text, &name, &|_| None).expect_err("a link").to_string();
    assert!(found.contains(":5:11: error:") && found.contains("is a link"), "{found}");
}

#[test]
fn a_snapshot_has_a_name_and_limits() {
    for (keys, text) in [
        ("snapshot = \"\"", "this is empty"),
        ("snapshot = \"/tmp/a\"\nsnapshot_size = \"1B\"", "too small"),
        ("snapshot = \"/tmp/a\"\nsnapshot_time = \"2m\"", "too large"),
    ] {
        let found = diagnostics(&format!("[upstream]\nurl = \"http://a\"\n[memory]\n{keys}\n"));
        let errors: Vec<_> = found.errors().collect();
        assert!(errors.len() == 1 && errors[0].line >= 4, "{found}");
        assert!(found.to_string().contains(text), "{found}");
    }
    let memory = |keys: &str| parse(&format!("[upstream]\nurl = \"http://a\"\n[memory]\n{keys}\n"));
    let settings = memory("snapshot = \"/nonexistent/a\"").ok().and_then(|config| config.snapshot);
    let settings = settings.expect("the sidecar starts all the same");
    assert_eq!(
        (settings.path, settings.size, settings.time),
        ("/nonexistent/a".into(), 256 << 20, Duration::from_secs(3))
    );
    assert!(memory("").is_ok_and(|config| config.snapshot.is_none()), "it is off by default");
}

#[test]
fn likely_slips_show_no_secret() {
    for slip in [
        "[redis]\nurl = \"user:hunter2@host\"",
        "[redis]\nurl = \"hunter2@host\"",
        "[redis]\nurl = user:hunter2@host",
        "[redis]\nurl = \"redis://user:hunter2@host:x\"",
        "[redis]\nurl = \"redis://h\"\npass = \"hunter2\"",
        "[redis]\nurl = \"redis://h\"\nuser:hunter2@host",
        "[listen]\naddress = \"user:hunter2@host\"",
        "[admin]\naddress = \"http://user:hunter2@127.0.0.1:9090\"",
        "[admin]\napi_key = \"hunter2\"",
        "[admin]\nauth = \"hunter2\"",
        "[credential]\nlogin_paths = [\"https://user:hunter2@host/login\"]",
    ] {
        let text = format!("[upstream]\nurl = \"http://a\"\n{slip}\n");
        let found = diagnostics(&text);
        assert!(!found.to_string().contains("hunter2"), "{found}");
        assert!(found.iter().all(|problem| !problem.found.contains("hunter2")), "{found:?}");
    }
    let found = diagnostics("[upstream]\nurl = \"user:hunter2@host\"\n").to_string();
    assert!(!found.contains("hunter2"), "{found}");
}
