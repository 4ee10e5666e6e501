//! The real binary as a command that runs until it is told to end, with pipes or in a terminal of
//! its own.

use std::fs::File;
use std::io::{Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio::time::sleep;

use super::process::signal;

/// A running command. Dropping it ends it.
pub struct Running {
    /// Its status stays known after it was waited for.
    child: Mutex<Child>,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
    stop_reading: Arc<Mutex<bool>>,
    readers: Vec<JoinHandle<()>>,
    terminal: Option<File>,
}

impl Running {
    /// With its output in pipes.
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::piped(command(arguments, variables))
    }

    /// The same, in this folder.
    pub fn start_in(folder: &std::path::Path, arguments: &[&str]) -> Self {
        let mut command = command(arguments, &[]);
        command.current_dir(folder);
        Self::piped(command)
    }

    fn piped(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built with the tests");
        let stop_reading = Arc::default();
        let (out, reader) = collect(child.stdout.take().expect("it is piped"), &stop_reading);
        let (err, other) = collect(child.stderr.take().expect("it is piped"), &Arc::default());
        let readers = vec![reader, other];
        Self { child: Mutex::new(child), out, err, stop_reading, readers, terminal: None }
    }

    /// In a terminal of this size, which is standard input, output and error.
    pub fn in_terminal(
        arguments: &[&str],
        variables: &[(&str, &str)],
        (columns, rows): (u16, u16),
    ) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let own = openpt(flags).expect("a terminal can be made");
        grantpt(&own).expect("a terminal of this user");
        unlockpt(&own).expect("a terminal of this user");
        let name = ptsname(&own, Vec::new()).expect("a terminal has a name");
        let theirs = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a name in UTF-8"))
            .expect("a terminal can be opened");
        let terminal = File::from(own);
        resize(&terminal, (columns, rows));
        let again = || theirs.try_clone().expect("a descriptor can be cloned");
        let child = command(arguments, variables)
            .stdin(again())
            .stdout(again())
            .stderr(again())
            .spawn()
            .expect("the binary was built with the tests");
        let (out, reader) = collect(terminal.try_clone().expect("a descriptor"), &Arc::default());
        let (err, stop_reading) = Default::default();
        let (terminal, readers) = (Some(terminal), vec![reader]);
        Self { child: Mutex::new(child), out, err, stop_reading, readers, terminal }
    }

    /// What it has written to standard output, or to its terminal.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.lock()).into_owned()
    }

    /// What it has written to standard error.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.err.lock()).into_owned()
    }

    /// Types this into its terminal.
    pub fn types(&self, text: &str) {
        let mut terminal = self.terminal.as_ref().expect("it runs in a terminal");
        terminal.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// Gives its terminal another size, and tells it so.
    pub fn resize(&self, size: (u16, u16)) {
        resize(self.terminal.as_ref().expect("it runs in a terminal"), size);
        self.signal("WINCH");
    }

    /// Whether its terminal shows what is typed, and takes lines, as usual.
    pub fn is_as_usual(&self) -> bool {
        let terminal = self.terminal.as_ref().expect("it runs in a terminal");
        let modes = tcgetattr(terminal).expect("it is a terminal").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Sends it a signal, such as `INT`.
    pub fn signal(&self, name: &str) {
        signal(self.child.lock().id(), name);
    }

    /// Closes the pipe that it writes to.
    pub fn close_output(&self) {
        *self.stop_reading.lock() = true;
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.status().is_some()
    }

    fn status(&self) -> Option<ExitStatus> {
        self.child.lock().try_wait().expect("a child can be waited for")
    }

    /// Its exit code, once it has ended and what it wrote has come; `None` if a signal ended it.
    pub async fn ended(&self) -> Option<i32> {
        for _ in 0..600 {
            let is_read = self.readers.iter().all(JoinHandle::is_finished);
            if let Some(status) = self.status().filter(|_| is_read) {
                return status.code();
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("the command did not end within 30 s: {}{}", self.out(), self.err());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut child = self.child.lock();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecache"));
    command.args(arguments).current_dir("/");
    let names = ["SIDECACHE_CONFIG", "SIDECACHE_ADMIN", "SIDECACHE_ADMIN_TOKEN", "NO_COLOR"];
    for name in names {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color").envs(variables.iter().copied());
    command
}

fn resize(terminal: &File, (columns, rows): (u16, u16)) {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a terminal has a size");
}

/// Reads to the end, or until it is told to stop, which closes the pipe after what comes next.
fn collect(
    mut from: impl Read + Send + 'static,
    stop: &Arc<Mutex<bool>>,
) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let (all, stop) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::clone(stop));
    let into = Arc::clone(&all);
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            into.lock().extend_from_slice(&buffer[..read]);
            if *stop.lock() {
                return;
            }
        }
    });
    (all, reader)
}
