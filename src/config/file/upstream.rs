//! `[upstream]`, as people write it.

use crate::config::decode::{Count, Period, Size, TomlList, TomlString, table};
use crate::config::keywords::HostWord;

table! {
    /// The origin: the app behind the sidecar.
    #[schemars(extend("required" = ["url"]))]
    UpstreamSection("[upstream]", "[upstream]") {
        /// Where the origin listens: `http://` or `https://`, host and port, no path; or
        /// `unix:` and the path of a socket on which it speaks HTTP.
        #[schemars(extend("examples" = [
            "http://127.0.0.1:8000",
            "https://app.internal",
            "unix:/run/app.sock",
        ]))]
        url: TomlString,
        /// Which `Host` the origin gets: the client's (`preserve`), or that of `url` (`upstream`).
        host: HostWord = "preserve",
        /// The host in the keys of all entries, in place of the one that clients name, and the one
        /// that fills are for. Sidecars that are reached by different names or ports share their
        /// entries by it. For an origin that answers all hosts alike; never for virtual hosts.
        #[schemars(extend("examples" = ["app.example.com"]))]
        host_key: TomlString,
        /// How long connecting may take.
        connect_timeout: Period = "2s",
        /// How long the origin may take from the end of the request to the head of its response.
        first_byte_timeout: Period = "60s",
        /// How long the body of a response may pause. Event streams may pause for any time.
        idle_timeout: Period = "5m",
        /// How long a WebSocket or another upgraded connection may be silent.
        tunnel_timeout: Period = "1h",
        /// How long an unused connection is kept.
        keep_alive: Period = "15s",
        /// How long a connection takes new requests. After that it is closed when it is free, and
        /// the name is looked up again. Some connections get up to a quarter less.
        max_age: Period = "5m",
        /// How many connections to the origin may be open at once.
        max_connections: Count = 512,
        /// How many of them may be tunnels (a WebSocket is one) and event streams. At least a
        /// quarter of `max_connections` stays for other requests.
        #[schemars(extend("minimum" = 1))]
        max_tunnels: Count = 384,
        /// How many requests may wait for a connection.
        max_waiting: Count = 1024,
        /// How long a request may wait for a connection.
        wait_timeout: Period = "5s",
        /// The largest response head that is accepted.
        max_header_bytes: Size = "256KiB",
        /// How many bytes of interim responses (1xx) may come before a response.
        max_interim_bytes: Size = "64KiB",
        /// How many headers a response may have.
        max_headers: Count = 256,
        /// The protocols that a connection may be upgraded to. A request for another one goes on
        /// without its `Upgrade`. `[]` allows none.
        upgrades: TomlList<TomlString> = ["websocket"],
        /// Whether a connection is used again after a request with a body. A GET, HEAD, DELETE or
        /// OPTIONS with a body always ends it, because some origins leave such a body unread.
        reuse_after_body: bool = true,
        /// Whether the origin is told in `Via` that the sidecar stands in between, as RFC 9110
        /// 7.6.3 asks. A default nginx answers requests with `Via` uncompressed, and so may IIS.
        /// Responses to clients always have it.
        via: bool = false,
        /// Whether the names of headers reach the origin as `Content-Type`, not as `content-type`,
        /// for old firmware and SOAP apps that tell names apart by case.
        title_case_headers: bool = false,
        /// Whether the origin obeys a GET that names another method, in `X-HTTP-Method-Override` or
        /// `_method`. Then such a GET is a write. Otherwise it is passed, is not stored, and purges
        /// nothing.
        method_override: bool = false,
        /// The `User-Agent` that the origin gets with fills that do not carry the caller's. The
        /// default is that of an ordinary browser, so that the origin sends its ordinary page.
        user_agent: TomlString =
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
        /// A PEM file of roots to trust in place of the system's; relative to the folder of this
        /// file.
        ca_file: TomlString,
    }
}
