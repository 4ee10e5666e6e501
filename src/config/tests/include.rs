//! `include`: which files are read, what may stand in them, and where their faults are reported.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::diff::{self, ConfigSnapshot};
use super::super::include::{IncludeSource, IncludedFile};
use super::super::{Config, Diagnostics, Severity, sharing};

const HEAD: &str = "include = [\"conf.d/*.toml\"]\n[upstream]\nurl = \"http://127.0.0.1:1\"\n";

/// A folder with a main file and others.
struct Files(TempDir);

impl Files {
    fn new(main: &str, others: &[(&str, &str)]) -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        files.write("proxy.toml", main);
        for (name, text) in others {
            files.write(name, text);
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    }

    fn load(&self) -> Result<Config, Diagnostics> {
        Config::load(&self.path("proxy.toml"))
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|found| panic!("{found}"))
    }

    /// What is said of the files, without the name of the folder.
    fn said(&self) -> String {
        let found = self.load().expect_err("a faulty file").to_string();
        found.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// The paths and places of the routes.
fn routes(config: &Config) -> Vec<(String, Option<String>, usize)> {
    let name = |file: &str| Path::new(file).file_name().map(|name| name.to_string_lossy().into());
    let one = |route: &std::sync::Arc<crate::policy::route::Route>| {
        let place = &route.spec.place;
        (route.name().to_owned(), place.file.as_deref().and_then(name), place.line)
    };
    config.routes.iter().map(one).collect()
}

fn route(path: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\nttl = \"1m\"\n")
}

#[test]
fn r1281_the_rules_of_all_files_are_joined_in_the_order_of_patterns_and_names() {
    let main = format!(
        "include = [\"last.toml\", \"./conf.d/*.toml\", \"conf.d/a.toml\"]\n\
         [upstream]\nurl = \"http://127.0.0.1:1\"\n[defaults]\nscope = \"public\"\n{}",
        route("/main")
    );
    let files = Files::new(
        &main,
        &[
            ("conf.d/b.toml", &format!("# of b\n{}", route("/b"))),
            (
                "conf.d/a.toml",
                &format!("{}[[purges]]\npath = \"/a\"\ntags = [\"a\"]\n", route("/a")),
            ),
            ("conf.d/.hidden.toml", "this is no TOML"),
            ("conf.d/other.txt", "this is no TOML"),
            ("last.toml", &route("/last")),
        ],
    );
    let config = files.config();
    let place =
        |path: &str, file: Option<&str>, line| (path.to_owned(), file.map(str::to_owned), line);
    assert_eq!(
        routes(&config),
        [
            place("/main", None, 6),
            place("/last", Some("last.toml"), 1),
            place("/a", Some("a.toml"), 1),
            place("/b", Some("b.toml"), 2),
        ]
    );
    assert_eq!(config.purges.len(), 1);
    // `[defaults]` is for all of them.
    assert!(config.routes.iter().all(|route| route.spec.scope.as_str() == "public"));
}

#[test]
fn r1282_a_fault_is_reported_in_the_file_and_line_that_has_it() {
    let files = Files::new(
        HEAD,
        &[
            ("conf.d/a.toml", "\n[[routes]]\npath = \"/a\"\n  tll = \"1m\"\n"),
            ("conf.d/b.toml", "[[routes]]\npath = \"/b\"\nttl = 5m\n"),
        ],
    );
    let said = files.said();
    let unknown = "conf.d/a.toml:4:3: error: a route has no key `tll`\n  |\n4 |   tll = \"1m\"\n  \
                   |   ^^^\n";
    assert!(said.contains(unknown) && said.contains("did you mean `ttl`?"), "{said}");
    assert!(said.contains("conf.d/b.toml:3:7: error: syntax error"), "{said}");
    assert!(said.contains("3 | ttl = 5m"), "{said}");
    assert!(said.ends_with("2 errors in proxy.toml and what it includes"), "{said}");

    // A message about two rules names the other file; in one file the line alone.
    let twice = format!("{}{}", route("/x"), route("/x"));
    for (main, other, told) in [
        (String::new(), twice.clone(), "the route at line 2 has the same path"),
        (route("/x"), route("/x"), "the route at line 5 of proxy.toml has the same path"),
    ] {
        let files = Files::new(&format!("{HEAD}{main}"), &[("conf.d/a.toml", &other)]);
        assert!(files.said().contains(told), "{}", files.said());
    }
    let two = [("conf.d/a.toml", &*route("/x")), ("conf.d/b.toml", &*route("/x"))];
    let said = Files::new(HEAD, &two).said();
    assert!(
        said.contains("conf.d/b.toml:2:8: error: the route at line 2 of conf.d/a.toml"),
        "{said}"
    );

    // The end of a file is not the beginning of the next one, and its secrets are not shown.
    let open = "[[routes]]\npath = \"/s\"\ntoken = \"hunter2-hunter2\"\nttl = ";
    let files = Files::new(HEAD, &[("conf.d/a.toml", open), ("conf.d/b.toml", &route("/b"))]);
    let said = files.said();
    assert!(said.contains("conf.d/a.toml:4:") && !said.contains("hunter2"), "{said}");
    assert!(!said.contains("conf.d/b.toml"), "{said}");
}

#[test]
fn r1283_an_included_file_has_rules_and_fields_alone() {
    for (text, told) in [
        ("mode = \"off\"\n", "conf.d/a.toml:1:1: error: `mode` cannot stand in an included file"),
        ("[admin]\naddress = \"127.0.0.1:1\"\n", "`admin` cannot stand in an included file"),
        ("include = [\"../x.toml\"]\n", "conf.d/a.toml:1:1: error: an included file includes no"),
        ("[[route]]\npath = \"/a\"\n", "did you mean `routes`?"),
        ("[routes]\npath = \"/a\"\n", "write the header with double brackets: [[routes]]"),
        ("[[fields]]\nx = 1\n", "write the header as [fields]"),
        (
            "[fields]\ntenant = { cookie = \"t\" }\n",
            "the field `tenant` is also at line 6 of proxy.toml",
        ),
    ] {
        let main = format!("{HEAD}{}", "\n[fields]\ntenant = { header = \"x-tenant\" }\n");
        let files = Files::new(&main, &[("conf.d/a.toml", text)]);
        let said = files.said();
        assert!(said.contains(told), "{told}: {said}");
    }
    // Its fields are for the rules of all files, and expectations see the rules of all.
    let files = Files::new(
        &format!("{HEAD}{}key = [\"tenant\"]\n", route("/a")),
        &[
            ("conf.d/a.toml", "[fields]\ntenant = { header = \"x-tenant\" }\n"),
            ("conf.d/b.toml", "[[expect]]\nrequest = \"GET /a\"\nroute = \"/b\"\n"),
        ],
    );
    assert!(files.said().contains("conf.d/b.toml:3:9: error"), "{}", files.said());
    files.write("conf.d/b.toml", "");
    files.config();
}

#[test]
fn r1284_what_is_read_is_bounded_and_regular() {
    let with = |pattern: &str| HEAD.replacen("conf.d/*.toml", pattern, 1);
    let files = Files::new(&with("*"), &[]);
    assert!(files.said().contains("proxy.toml:1:12: error: proxy.toml is the file itself"));
    symlink("proxy.toml", files.path("link.toml")).expect("a link");
    files.write("proxy.toml", &with("link.toml"));
    assert!(files.said().contains("link.toml is the file itself"), "{}", files.said());
    for (pattern, told) in [
        ("missing.toml", "there is no file missing.toml"),
        ("/dev/zero", "/dev/zero is not a regular file"),
        ("/dev/*", "error: "),
        ("folder*", "folder is not a regular file"),
        ("fifo", "fifo is not a regular file"),
        ("pipe.toml", "pipe.toml is not a regular file"),
        ("conf.d/**", "`**` is not known here"),
        ("", "this names no file"),
        ("${UNSET_VARIABLE_OF_A_TEST}", "is not set"),
        ("latin.toml", "line 2 of latin.toml is not UTF-8"),
    ] {
        let files = Files::new(&with(pattern), &[("folder/x", "")]);
        let made = std::process::Command::new("mkfifo").arg(files.path("fifo")).status();
        assert!(made.expect("mkfifo").success());
        symlink("fifo", files.path("pipe.toml")).expect("a link");
        fs::write(files.path("latin.toml"), b"# a\n# \xe9\n").expect("written");
        let said = files.said();
        assert!(said.contains(told) && said.contains("proxy.toml:1:"), "{pattern}: {said}");
    }
    // The value of a variable is not shown.
    let text = with("${PATH}");
    let files = Files::new(&text, &[]);
    let said = files.said();
    assert!(said.contains("${PATH}") && !said.contains("/bin"), "{said}");
    fs::write(files.path("a\nb.toml"), "").expect("written");
    files.write("proxy.toml", &with("*b.toml"));
    assert!(files.said().contains("a\\nb.toml\" cannot be shown"), "{}", files.said());
    // Together they have the room of one file.
    let room = (256 << 10) - HEAD.len();
    let files = Files::new(HEAD, &[("conf.d/a.toml", &"#".repeat(room))]);
    files.config();
    files.write("conf.d/b.toml", "#");
    assert!(files.said().contains("all files together are larger than 256KiB"), "{}", files.said());
    // Their number is bounded, and the names that are looked at.
    let files = Files::new(HEAD, &[]);
    for number in 0..64 {
        files.write(&format!("conf.d/{number}.toml"), "");
    }
    files.config();
    files.write("conf.d/a.toml", "");
    assert!(files.said().contains("more than 64 files"), "{}", files.said());
    for number in 0..4100 {
        files.write(&format!("conf.d/{number}.txt"), "");
    }
    assert!(files.said().contains("more than 4096 names"), "{}", files.said());
}

#[test]
fn r1285_a_glob_that_matches_nothing_is_a_note() {
    for pattern in ["conf.d/*.toml", "*/conf.toml", "proxy.toml/*"] {
        let files = Files::new(&HEAD.replacen("conf.d/*.toml", pattern, 1), &[]);
        let warnings = files.config().warnings;
        let notes = warnings.iter().filter(|one| one.severity == Severity::Note);
        let told: Vec<_> = notes.map(|one| (one.line, one.column)).collect();
        assert_eq!(told, [(1, 12)], "{pattern}");
    }
    // Folders may be matched, and paths may begin elsewhere.
    let files = Files::new(
        &HEAD.replacen("conf.d/*.toml", "../*/apps/*/rules.toml", 1),
        &[("apps/b/rules.toml", &route("/b")), ("apps/a/rules.toml", &route("/a"))],
    );
    files.write("apps/c/other.toml", "no TOML");
    let folder = files.0.path().file_name().expect("a name").to_string_lossy().into_owned();
    let text = HEAD.replacen("conf.d/*.toml", &format!("../{folder}/apps/*/rules.toml"), 1);
    files.write("proxy.toml", &text);
    assert_eq!(routes(&files.config()).iter().map(|one| &*one.0).collect::<Vec<_>>(), ["/a", "/b"]);
}

#[test]
fn r1286_a_text_that_comes_alone_has_no_files_read() {
    let files = Files::new(HEAD, &[("conf.d/a.toml", &route("/a"))]);
    let name = files.path("proxy.toml").display().to_string();
    let found = Config::parse(HEAD, &name, &|_| None).expect_err("it names files").to_string();
    assert!(found.contains(":1:11: error: this text comes alone"), "{found}");
    let given = [IncludedFile { name: "x.toml".into(), text: route("/x").as_str().into() }];
    let from = IncludeSource::Given(&given);
    let config = Config::parse_with(HEAD, &name, &|_| None, from).expect("it has its files");
    assert_eq!(config.routes.iter().map(|route| route.name()).collect::<Vec<_>>(), ["/x"]);
    let many = vec![given[0].clone(); 65];
    let found = Config::parse_with(HEAD, &name, &|_| None, IncludeSource::Given(&many));
    assert!(found.expect_err("too many").to_string().contains("more than 64 files"));
    let large = [IncludedFile { name: "x".into(), text: "#".repeat(256 << 10).as_str().into() }];
    let found = Config::parse_with(HEAD, &name, &|_| None, IncludeSource::Given(&large));
    assert!(found.expect_err("too large").to_string().contains("larger than 256KiB"));
}

#[test]
fn r1287_a_rule_may_move_to_another_file_and_nothing_changes() {
    let fields = "[fields]\ntenant = { header = \"x-tenant\" }\n";
    let rules = format!("{}key = [\"tenant\"]\n", route("/a"));
    let snapshot = |files: &Files| ConfigSnapshot::from_config(&files.config());
    let one = snapshot(&Files::new(&format!("{HEAD}{fields}{rules}"), &[]));
    let split = [("conf.d/f.toml", fields), ("conf.d/r.toml", &*rules)];
    let two = snapshot(&Files::new(HEAD, &split));
    assert_eq!(one.rules_digest(), two.rules_digest());
    assert!(diff::changes(&one, &two).is_empty());
    // A rule of an included file counts as one of the main file.
    let longer = rules.replace("1m", "2m");
    let three =
        snapshot(&Files::new(HEAD, &[("conf.d/f.toml", fields), ("conf.d/r.toml", &longer)]));
    assert_ne!(two.rules_digest(), three.rules_digest());
    assert_eq!(diff::changes(&two, &three).len(), 1);
}

#[test]
fn r1288_a_widening_is_refused_where_it_stands_or_accepted_there() {
    let fields = "[fields]\ntenant = { header = \"x-tenant\" }\n";
    let first = route("/first");
    let with = |key: &str| {
        let rules = format!("# the rules\n{}scope = \"public\"\n{key}\n", route("/a"));
        Files::new(&format!("{HEAD}{fields}{first}"), &[("conf.d/a.toml", &rules)])
    };
    let before = ConfigSnapshot::from_config(&with("key = [\"tenant\"]").config());
    let refused = |key: &str| {
        let found = sharing::refusals(&with(key).config(), "proxy.toml", &before.sharing);
        found.map(|found| found.to_string())
    };
    let found = refused("key = []").expect("others share the entry");
    assert!(found.contains("conf.d/a.toml:6:") && found.contains("6 | key = []"), "{found}");
    assert_eq!(refused("key = [] # check: ok"), None);
}
