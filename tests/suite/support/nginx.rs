//! A real nginx with the configuration that ships in `deploy/nginx`, but for its addresses and its
//! folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::process::free_port;

/// What ships.
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/nginx/sidecache.conf");
/// The page with the ten lines.
const MANUAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/operations/deploy.md");
/// Where nginx puts bodies that it reads before it sends them.
const BODIES: &str = "bodies";

/// The process. Dropping it ends it.
pub struct Nginx {
    /// Where it answers clients.
    pub address: SocketAddr,
    child: Child,
    directory: TempDir,
}

impl Nginx {
    /// An nginx in front of this sidecar, and of this app for when the sidecar is down.
    pub async fn start(sidecar: SocketAddr, app: SocketAddr) -> Self {
        Self::start_before(&sidecar.to_string(), app).await
    }

    /// The same, in front of a sidecar that listens at this address, such as `unix:/path`.
    pub async fn start_before(sidecar: &str, app: SocketAddr) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let directory = TempDir::new().expect("a temporary directory can be made");
        write_config(directory.path(), address, sidecar, app);
        Self::run(address, directory).await
    }

    /// One with the ten lines of the manual, in front of this sidecar.
    pub async fn start_in_ten_lines(sidecar: SocketAddr) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let directory = TempDir::new().expect("a temporary directory can be made");
        let page = std::fs::read_to_string(MANUAL).expect("the page is there");
        let (_, lines) = page.split_once("```nginx\n").expect("the page has a block for nginx");
        let (lines, _) = lines.split_once("```").expect("the block ends");
        let places =
            [("127.0.0.1:8080", sidecar.to_string()), ("listen 80;", format!("listen {address};"))];
        write(directory.path(), lines.to_owned(), &places);
        Self::run(address, directory).await
    }

    async fn run(address: SocketAddr, directory: TempDir) -> Self {
        let tested = command(directory.path()).arg("-t").output().expect("nginx is installed");
        assert!(tested.status.success(), "nginx -t: {}", String::from_utf8_lossy(&tested.stderr));
        let child =
            command(directory.path()).stdin(Stdio::null()).spawn().expect("nginx is installed");
        let nginx = Self { address, child, directory };
        super::eventually("nginx accepts connections", Duration::from_secs(10), async || {
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        nginx
    }

    /// Whether a request's body was put into a file before it was sent on.
    pub fn has_spooled(&self) -> bool {
        let folder = std::fs::read_dir(self.directory.path().join(BODIES))
            .expect("nginx has made its folders");
        folder.count() > 0
    }

    /// The lines of the access log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("sidecache.log"))
            .expect("nginx has opened its log")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(directory: &Path) -> Command {
    // Debian keeps it where only root looks.
    let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
    let mut command = Command::new(program);
    command
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(directory.join("nginx.conf"))
        .args(["-e", "stderr"]);
    command
}

fn write_config(directory: &Path, address: SocketAddr, sidecar: &str, app: SocketAddr) {
    let text = std::fs::read_to_string(SHIPPED).expect("deploy/nginx/sidecache.conf ships");
    let places = [
        ("127.0.0.1:8080", sidecar.to_owned()),
        ("127.0.0.1:8000", app.to_string()),
        ("listen 80;", format!("listen {address};")),
        ("/var/log/nginx", directory.display().to_string()),
    ];
    write(directory, text, &places);
}

/// Writes the configuration, with our places for those that it names.
fn write(directory: &Path, mut text: String, places: &[(&str, String)]) {
    for (shipped, ours) in places {
        assert!(text.contains(shipped), "it names {shipped}: {text}");
        text = text.replace(shipped, ours);
    }
    // Bodies lie in folders within their folder, which stay when the bodies are gone.
    let folders = format!("client_body_temp_path {BODIES} 1;\n")
        + &["proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};\n"))
            .concat();
    // One process, so that its end is the end of all of it.
    let main = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{ worker_connections 512; \
        }}\nhttp {{\n{folders}include sidecache.conf;\n}}\n"
    );
    std::fs::write(directory.join("sidecache.conf"), text)
        .expect("the temporary directory can be written to");
    std::fs::write(directory.join("nginx.conf"), main)
        .expect("the temporary directory can be written to");
}
