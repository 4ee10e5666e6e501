//! The real binary as a command that ends by itself: what it is told, what it says, and how it
//! exits.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A command line, in a directory of its own.
pub struct CommandLine {
    directory: TempDir,
    variables: Vec<(String, String)>,
    input: String,
}

impl CommandLine {
    /// A directory without a proxy.toml.
    pub fn new() -> Self {
        Self {
            directory: TempDir::new().expect("a temporary directory can be made"),
            variables: Vec::new(),
            input: String::new(),
        }
    }

    /// With this file in the directory.
    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.directory.path().join(name), text)
            .expect("the temporary directory can be written to");
        self
    }

    /// A file of the directory.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).expect("the file is there")
    }

    /// With this variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this on standard input.
    pub fn input(mut self, text: &str) -> Self {
        text.clone_into(&mut self.input);
        self
    }

    /// Runs the binary with these arguments to its end, beside the test's own tasks.
    pub async fn run(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidecache"));
        command
            .current_dir(self.directory.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in ["SIDECACHE_CONFIG", "SIDECACHE_ADMIN", "SIDECACHE_ADMIN_TOKEN"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let input = self.input.clone();
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("the binary was built with the tests");
            // A command that does not read its input may close it.
            let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
            child.wait_with_output().expect("a child can be waited for")
        });
        let output = output.await.expect("the command was waited for");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("commands write UTF-8");
        Said {
            code: output.status.code().expect("it ended by itself"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}
