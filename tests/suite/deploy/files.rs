//! What ships in `deploy` for Docker, Compose, systemd and Kubernetes: their own tools accept it,
//! and its parts fit each other and the sidecar.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize as _;
use serde_yaml_ng::Value;
use sidecache::config::Config;
use tempfile::TempDir;

const TOP: &str = env!("CARGO_MANIFEST_DIR");
const BINARY: &str = env!("CARGO_BIN_EXE_sidecache");

fn path(name: &str) -> PathBuf {
    Path::new(TOP).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// A value somewhere below, by keys. Panics when there is none.
fn at<'value>(value: &'value Value, keys: &[&str]) -> &'value Value {
    keys.iter().fold(value, |value, key| {
        value.get(key).unwrap_or_else(|| panic!("no {key} of {keys:?} in {value:?}"))
    })
}

fn string<'value>(value: &'value Value, keys: &[&str]) -> &'value str {
    at(value, keys).as_str().unwrap_or_else(|| panic!("{keys:?} is text"))
}

fn items<'value>(value: &'value Value, keys: &[&str]) -> &'value [Value] {
    at(value, keys).as_sequence().unwrap_or_else(|| panic!("{keys:?} is a list"))
}

fn number(value: &Value, keys: &[&str]) -> u64 {
    at(value, keys).as_u64().unwrap_or_else(|| panic!("{keys:?} is a number"))
}

/// The item of a list that has this name.
fn named<'value>(list: &'value [Value], name: &str) -> &'value Value {
    list.iter()
        .find(|item| item.get("name").and_then(Value::as_str) == Some(name))
        .unwrap_or_else(|| panic!("{name} is not in {list:?}"))
}

/// The variables of the environment that a text names, `${NAME}` or `${NAME:-default}`.
fn variables(text: &str) -> Vec<&str> {
    let ends = [':', '}'];
    text.split("${").skip(1).filter_map(|rest| rest.split(ends).next()).collect()
}

/// The grace of a sidecar with these rules, in seconds. What the environment gives is filled in.
fn drain(rules: &str) -> u64 {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let file = directory.path().join("proxy.toml");
    std::fs::write(directory.path().join("admin-token"), "a-token-of-this-test")
        .expect("the temporary directory can be written to");
    let rules = rules
        .replace("/etc/sidecache-secret", ".")
        .replace("/var/lib/sidecache", ".")
        .replace("${REDIS_URL}", "redis://127.0.0.1:6379")
        .replace("${SIDECACHE_SECRET}", "a-secret-of-this-test");
    std::fs::write(&file, rules).expect("the temporary directory can be written to");
    let config = Config::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.warnings.is_empty(), "it is an example to follow: {:?}", config.warnings);
    config.server.drain.as_secs()
}

// Compose.

fn compose(arguments: &[&str]) -> Output {
    let plugin = Command::new("docker")
        .args(["compose", "version"])
        .output()
        .is_ok_and(|output| output.status.success());
    let mut command = if plugin { Command::new("docker") } else { Command::new("docker-compose") };
    command
        .args(plugin.then_some("compose"))
        .args(arguments)
        .current_dir(path("deploy/compose"))
        .output()
        .expect("Compose is installed")
}

/// What `.env.example` is once its secrets are chosen.
fn filled_in(directory: &TempDir) -> String {
    let file = directory.path().join("env");
    let example = text("deploy/compose/.env.example");
    let chosen = |line: &str| match line.strip_suffix('=') {
        Some(name) => format!("{name}=a-secret-of-this-test"),
        None => line.to_owned(),
    };
    let lines: Vec<_> = example.lines().map(chosen).collect();
    std::fs::write(&file, lines.join("\n")).expect("the temporary directory can be written to");
    file.to_str().expect("a path of the test is UTF-8").to_owned()
}

#[test]
fn r1361_compose_starts_nothing_without_secrets() {
    let output = compose(&["--env-file", ".env.example", "config"]);
    assert!(!output.status.success() && said(&output).contains("in .env"), "{}", said(&output));
    let example = text("deploy/compose/.env.example");
    for name in ["REDIS_PASSWORD", "ADMIN_TOKEN", "SIDECACHE_SECRET"] {
        assert!(example.contains(&format!("\n{name}=\n")), "{name} has no value to leave in");
    }
}

#[test]
fn compose_accepts_its_file_and_its_parts_fit() {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let output = compose(&["--env-file", &filled_in(&directory), "config"]);
    assert!(output.status.success(), "{}", said(&output));
    let whole: Value = serde_yaml_ng::from_slice(&output.stdout).expect("it answers YAML");
    let sidecar = at(&whole, &["services", "sidecar"]);
    let given = at(sidecar, &["environment"]);

    let rules = text("deploy/compose/sidecache/proxy.toml");
    for variable in variables(&rules) {
        assert!(
            given.get(variable).is_some(),
            "compose.yaml gives no {variable}, which proxy.toml wants"
        );
    }
    let grace = string(sidecar, &["stop_grace_period"])
        .trim_end_matches('s')
        .parse::<u64>()
        .expect("seconds");
    assert!(grace > drain(&rules), "Docker would kill it in the midst of its drain");

    let redis = items(&whole, &["services", "redis", "command"]);
    let follows = |flag: &str| {
        redis
            .iter()
            .position(|word| word.as_str() == Some(flag))
            .and_then(|at| redis[at + 1].as_str())
    };
    assert_eq!(
        (follows("--maxmemory-policy"), follows("--save"), follows("--appendonly")),
        (Some("volatile-lru"), Some(""), Some("no"))
    );
    for service in ["sidecar", "redis"] {
        assert!(
            at(&whole, &["services", service, "healthcheck", "test"]).is_sequence(),
            "{service} is looked after"
        );
    }
    assert!(
        at(&whole, &["services", "app"]).get("ports").is_none(),
        "nobody writes past the sidecar"
    );
}

#[test]
fn compose_asks_for_what_it_must_be_told() {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let example = std::fs::read_to_string(filled_in(&directory)).expect("it was just written");
    for name in ["APP_IMAGE", "REDIS_PASSWORD", "ADMIN_TOKEN", "SIDECACHE_SECRET"] {
        let file = directory.path().join(name);
        let without: Vec<_> =
            example.lines().filter(|line| !line.starts_with(&format!("{name}="))).collect();
        let without = without.join("\n");
        assert!(example.contains(&format!("\n{name}=")), ".env.example has {name}");
        std::fs::write(&file, without).expect("the temporary directory can be written to");
        let output =
            compose(&["--env-file", file.to_str().expect("a path of the test is UTF-8"), "config"]);
        assert!(
            !output.status.success() && said(&output).contains("in .env"),
            "without {name}: {}",
            said(&output)
        );
    }
}

// Docker.

#[test]
fn dockerfile_copies_what_there_is_and_runs_as_nobody() {
    let (dockerfile, ignored) = (text("deploy/Dockerfile"), text(".dockerignore"));
    let mut copied = 0;
    for line in
        dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from"))
    {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        for source in &words[..words.len() - 1] {
            assert!(path(source).exists(), "{line}");
            assert!(
                ignored.lines().any(|line| line == format!("!{source}")),
                ".dockerignore keeps {source} out"
            );
            copied += 1;
        }
    }
    assert!(copied >= 4, "{copied}");
    let last = dockerfile.rsplit("\nFROM ").next().expect("there is a stage");
    assert!(last.starts_with("scratch\n"), "the image is empty but for the binary");
    assert!(last.contains("\nUSER 65532:65532\n"), "{last}");

    let version = |text: &str| {
        text.split('.').filter_map(|part| part.parse::<u32>().ok()).collect::<Vec<_>>()
    };
    let compiler = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("ARG RUST="))
        .expect("it names a compiler");
    assert!(version(compiler) >= version(env!("CARGO_PKG_RUST_VERSION")), "{compiler} is too old");
}

#[test]
fn health_checks_use_a_command_that_there_is() {
    for file in ["deploy/Dockerfile", "deploy/compose/compose.yaml"] {
        assert!(
            text(file).contains(r#"["CMD", "/sidecache", "stats", "--ready"]"#)
                || text(file).contains(r#"CMD ["/sidecache", "stats", "--ready"]"#)
        );
    }
    let output = Command::new(BINARY)
        .args(["stats", "--ready", "--help"])
        .output()
        .expect("the binary was built with the tests");
    assert!(output.status.success(), "{}", said(&output));
}

// systemd.

#[test]
fn systemd_accepts_the_unit_and_finds_it_hardened() {
    let unit = text("deploy/systemd/sidecache.service");
    let directory = TempDir::new().expect("a temporary directory can be made");
    let file = directory.path().join("sidecache.service");
    assert!(unit.contains("/usr/local/bin/sidecache "));
    std::fs::write(&file, unit.replace("/usr/local/bin/sidecache ", &format!("{BINARY} ")))
        .expect("the temporary directory can be written to");
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&file)
            .output()
            .expect("systemd-analyze is installed");
        (output.status.success(), said(&output))
    };
    let (accepted, said) = analyze(&["--man=no", "verify"]);
    assert!(accepted && !said.contains("sidecache.service:"), "{said}");
    // Of 100: what is left is that it speaks to the network.
    let (hardened, said) = analyze(&["security", "--no-pager", "--offline=true", "--threshold=15"]);
    assert!(hardened, "{said}");

    let setting = |name: &str| {
        unit.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name} is not set"))
    };
    let stop = setting("TimeoutStopSec=").trim_end_matches('s').parse::<u64>().expect("seconds");
    assert!(
        stop > drain(&text("deploy/systemd/proxy.toml")),
        "systemd would kill it in the midst of its drain"
    );
    assert_eq!(setting("Type="), "notify");
    assert_eq!(setting("Also="), "sidecache.socket");
    let socket = text("deploy/systemd/sidecache.socket");
    let rules = text("deploy/systemd/proxy.toml");
    let address = socket.lines().find_map(|line| line.strip_prefix("ListenStream="));
    let listen = format!("[listen]\naddress = \"{}\"", address.expect("it listens"));
    assert!(rules.contains(&listen), "both name one address");
    assert!(setting("ExecReload=").contains("-HUP"));
    assert_eq!(setting("RestartPreventExitStatus="), "64");
}

// Kubernetes.

fn manifests() -> Vec<Value> {
    let text = text("deploy/kubernetes/sidecar.yaml");
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).expect("it is YAML"))
        .collect()
}

fn of_kind<'value>(manifests: &'value [Value], kind: &str) -> &'value Value {
    manifests
        .iter()
        .find(|manifest| string(manifest, &["kind"]) == kind)
        .unwrap_or_else(|| panic!("there is a {kind}"))
}

#[test]
fn kubernetes_rules_are_good_and_reach_the_sidecar() {
    let manifests = manifests();
    let (map, pod) = (
        of_kind(&manifests, "ConfigMap"),
        at(of_kind(&manifests, "Deployment"), &["spec", "template", "spec"]),
    );
    let sidecar = named(items(pod, &["containers"]), "sidecache");
    let rules = string(map, &["data", "proxy.toml"]);
    let drain = drain(rules);
    for variable in variables(rules) {
        named(items(sidecar, &["env"]), variable);
    }
    // Both are told to stop at once; the app outlives the sidecar, and the pod both.
    let stop = |container: &str| {
        number(
            named(items(pod, &["containers"]), container),
            &["lifecycle", "preStop", "sleep", "seconds"],
        )
    };
    assert!(
        stop("app") >= stop("sidecache") + drain,
        "the app would be gone before what is under way is done"
    );
    assert!(number(pod, &["terminationGracePeriodSeconds"]) > stop("app"));

    let volumes = items(pod, &["volumes"]);
    for mount in items(sidecar, &["volumeMounts"]) {
        named(volumes, string(mount, &["name"]));
        assert!(mount.get("subPath").is_none(), "with subPath the file would never change");
    }
    assert_eq!(
        string(named(volumes, "rules"), &["configMap", "name"]),
        string(map, &["metadata", "name"])
    );
    let arguments: Vec<_> = items(sidecar, &["args"]).iter().filter_map(Value::as_str).collect();
    let mounted = string(named(items(sidecar, &["volumeMounts"]), "rules"), &["mountPath"]);
    assert_eq!(arguments, ["serve", "--config", &format!("{mounted}/proxy.toml")]);
    assert!(rules.contains(&format!(
        "\"{}/admin-token\"",
        string(named(items(sidecar, &["volumeMounts"]), "secret"), &["mountPath"])
    )));
    // The secret that the comment at the top makes has what is asked of it.
    let made = text("deploy/kubernetes/sidecar.yaml");
    for entry in items(sidecar, &["env"]) {
        assert_eq!(string(entry, &["valueFrom", "secretKeyRef", "name"]), "sidecache");
        assert!(made.contains(&format!(
            "--from-literal={}=",
            string(entry, &["valueFrom", "secretKeyRef", "key"])
        )));
    }
    assert!(made.contains("--from-literal=admin-token="));
}

#[test]
fn kubernetes_ports_probes_and_selectors_match() {
    let manifests = manifests();
    let (deployment, service) = (of_kind(&manifests, "Deployment"), of_kind(&manifests, "Service"));
    let pod = at(deployment, &["spec", "template", "spec"]);
    let sidecar = named(items(pod, &["containers"]), "sidecache");
    let ports = items(sidecar, &["ports"]);
    let rules = string(of_kind(&manifests, "ConfigMap"), &["data", "proxy.toml"]);
    for (name, address) in [("http", "0.0.0.0"), ("admin", "0.0.0.0")] {
        let listens = format!("= \"{address}:{}\"", number(named(ports, name), &["containerPort"]));
        assert!(rules.contains(&listens), "{name} of the container, and {listens} of proxy.toml");
    }
    for (probe, page) in
        [("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")]
    {
        assert_eq!(string(sidecar, &[probe, "httpGet", "path"]), page);
        named(ports, string(sidecar, &[probe, "httpGet", "port"]));
    }
    let labels = at(deployment, &["spec", "template", "metadata", "labels"]);
    assert_eq!(at(deployment, &["spec", "selector", "matchLabels"]), labels);
    assert_eq!(at(service, &["spec", "selector"]), labels);
    named(ports, string(&items(service, &["spec", "ports"])[0], &["targetPort"]));
    // The way back names a port of the app, and the sidecar looks for the app there.
    let app = named(items(pod, &["containers"]), "app");
    let way_back = number(named(items(app, &["ports"]), "app"), &["containerPort"]);
    assert!(rules.contains(&format!("url = \"http://127.0.0.1:{way_back}\"")));
    for (key, value) in [
        ("runAsNonRoot", true),
        ("readOnlyRootFilesystem", true),
        ("allowPrivilegeEscalation", false),
    ] {
        assert_eq!(at(sidecar, &["securityContext", key]).as_bool(), Some(value), "{key}");
    }
}
